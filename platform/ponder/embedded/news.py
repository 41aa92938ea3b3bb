"""What the supervisor says: a JSON object a line on stdout to whoever started it, and plain lines in its log."""

from __future__ import annotations

import json
import os
import sys
from contextlib import suppress
from datetime import UTC, datetime


def say(news: dict[str, str]) -> None:
    """One line to whoever started us, if they are still listening: `phase`, `ready` or `error`."""
    with suppress(BrokenPipeError, ValueError):
        print(json.dumps(news), flush=True)


def hang_up() -> None:
    """Nothing more is said: who started us may go."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def log(line: str) -> None:
    print(f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ} {line}", file=sys.stderr, flush=True)
