"""The `completion_window` of a batch, such as `24h`, `90m`, `7d` or `1d12h`."""

from __future__ import annotations

import re

from ponder.errors import InvalidInput

MIN_S = 3_600
MAX_S = 14 * 86_400
_SECONDS = {"w": 604_800, "d": 86_400, "h": 3_600, "m": 60, "s": 1}
_DURATION = re.compile(r"(?:\d{1,9}[wdhms])+")
_PART = re.compile(r"(\d+)([wdhms])")


def window_s(written: str) -> int:
    """Returns the seconds of a duration from 1h to 14d. Raises InvalidInput for anything else."""
    seconds = duration_s(written)
    if seconds is None:
        raise _refusal("is not a duration")
    if not MIN_S <= seconds <= MAX_S:
        raise _refusal("is out of range")
    return seconds


def duration_s(written: str) -> int | None:
    """Returns the seconds of a duration such as `1d12h`, or None for any other text."""
    text = written.strip().lower()
    if not _DURATION.fullmatch(text):
        return None
    return sum(int(number) * _SECONDS[unit] for number, unit in _PART.findall(text))


def _refusal(what: str) -> InvalidInput:
    return InvalidInput(
        f"completion_window {what}: give any duration from 1h to 14d, e.g. 24h, 90m or 1d12h",
        param="completion_window",
        code="invalid_completion_window",
    )
