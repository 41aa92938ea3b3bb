"""Waits for a condition, for a limited time."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

_T = TypeVar("_T")


def until(condition: Callable[[], _T], timeout_s: float) -> _T:
    """Waits for the condition to become true and returns its value. Fails after `timeout_s` seconds."""
    give_up_at = time.monotonic() + timeout_s
    while not (value := condition()):
        assert time.monotonic() < give_up_at, f"did not happen within {timeout_s:g} s"
        time.sleep(0.05)
    return value
