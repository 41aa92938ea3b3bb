"""Messages from the supervisor to the process that started it: one JSON object per line on stdout."""

from __future__ import annotations

import json
import os
import sys
from contextlib import suppress


def say(news: dict[str, str]) -> None:
    """Sends one message (`phase`, `ready` or `error`) to the starting process, if it still listens."""
    with suppress(BrokenPipeError, ValueError):
        print(json.dumps(news), flush=True)


def hang_up() -> None:
    """Closes the channel, so that the starting process may end."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
