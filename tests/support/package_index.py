"""The package index as a stranger's pip and uv see it, without this machine's configuration."""

from __future__ import annotations

import os
import subprocess
import sys
from functools import cache

import pytest

ISOLATED = {name: value for name, value in os.environ.items() if not name.startswith(("PIP_", "UV_"))} | {
    "PIP_CONFIG_FILE": os.devnull,
    "PIP_DISABLE_PIP_VERSION_CHECK": "1",
}


def skip_without_index() -> None:
    if not _is_reachable():
        pytest.skip("the package index cannot be reached")


@cache
def _is_reachable() -> bool:
    pip = [sys.executable, "-m", "pip", "--retries", "0", "--timeout", "10", "install", "--quiet"]
    asks = [*pip, "--dry-run", "--ignore-installed", "--no-deps", "click"]
    return subprocess.run(asks, env=ISOLATED, capture_output=True, check=False).returncode == 0
