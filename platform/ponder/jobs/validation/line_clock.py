"""Limits the processor time of a batch's lines, each and together."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from ponder.errors import InvalidInput
from ponder.jobs.validation.check_limits import CheckLimits, too_expensive
from ponder.jobs.validation.limited_process import TookTooLong, within

_LINE_S = 0.01
"""Granted to every line whatever the others took: a hundred times what a usual line needs."""


class LineClock:
    """The clock of one batch. It must be used in the main thread, because the limit is a signal."""

    def __init__(self, limits: CheckLimits) -> None:
        self._limits = limits
        self._left_s = limits.batch_s

    @contextmanager
    def line(self) -> Iterator[None]:
        """Raises InvalidInput in the body once it has taken too long. The message names the limit."""
        limit_s = min(self._limits.line_s, max(self._left_s, _LINE_S))
        began = time.process_time()
        try:
            with within(limit_s):
                yield
        except TookTooLong:
            raise self._refusal(limit_s) from None
        finally:
            self._left_s += _LINE_S - (time.process_time() - began)

    def _refusal(self, limit_s: float) -> InvalidInput:
        if limit_s == self._limits.line_s:
            return too_expensive(limit_s)
        return InvalidInput(
            f"its check takes long, and the lines of the batch have already taken more than {self._limits.batch_s:g} s "
            "of processor time (PONDER_MAX_BATCH_CHECK_S)",
            code="too_expensive",
        )
