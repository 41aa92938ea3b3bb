"""What the routes work with, and the checks that every route shares."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated

from fastapi import Depends, Request
from sqlalchemy import Engine

from ponder.api.tenant_limits import TenantLimits
from ponder.errors import NotFound
from ponder.jobs.submission_reader import SubmissionReader
from ponder.settings import Settings

_ID = re.compile(r"[a-z]{1,16}[-_][0-9a-f]{1,64}")


@dataclass(frozen=True, slots=True)
class Services:
    engine: Engine
    redis_url: str
    settings: Settings
    reader: SubmissionReader
    limits: TenantLimits


def _services(request: Request) -> Services:
    services = request.app.state.services
    assert isinstance(services, Services)
    return services


Ponder = Annotated[Services, Depends(_services)]


def identifier(value: str, what: str) -> str:
    """An id that may exist; raises NotFound for what cannot be one (and must not reach Postgres, e.g. with a NUL)."""
    if not _ID.fullmatch(value):
        raise NotFound(f"there is no such {what}")
    return value


def unix(at: datetime | None) -> int | None:
    return None if at is None else int(at.timestamp())
