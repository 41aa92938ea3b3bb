"""The clouds that give notices, one file each, and their table."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

from ponder_worker.parent.notices.cloud_watch import Cloud
from ponder_worker.parent.notices.clouds.aws import Aws
from ponder_worker.parent.notices.clouds.azure import Azure
from ponder_worker.parent.notices.clouds.gcp import Gcp
from ponder_worker.parent.notices.metadata_service import MetadataService

Clock = Callable[[], datetime]

CLOUDS: dict[str, Callable[[MetadataService, Clock], Cloud]] = {"aws": Aws, "gcp": Gcp, "azure": Azure}
"""Makers of clouds, by what --notices calls them. The clock tells the time in UTC."""
