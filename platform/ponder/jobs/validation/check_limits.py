"""Limits on the cost of checking a tenant's input, and the clock that keeps them."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Self

from ponder.domain.verifier_check import VerifierLimits
from ponder.errors import InvalidInput
from ponder.jobs.validation.limited_process import TookTooLong, within
from ponder.settings import Settings

_LINE_S = 0.01
"""Granted to every line whatever the others took: a hundred times what a usual line needs."""


@dataclass(frozen=True, slots=True)
class CheckLimits:
    """Limits in seconds of processor time, so that a busy machine refuses nothing."""

    verifier: VerifierLimits = field(default_factory=VerifierLimits)
    line_s: float = 1.0
    """One line of a batch, or the submission of one."""
    batch_s: float = 60.0
    """All lines of a batch, beyond what `LineClock` grants each of them."""

    @classmethod
    def of(cls, settings: Settings) -> Self:
        verifier = VerifierLimits(
            pattern_length=settings.max_pattern_length,
            schema_bytes=settings.max_schema_bytes,
            schema_depth=settings.max_schema_depth,
            subschemas=settings.max_subschemas,
        )
        return cls(verifier, settings.max_check_s, settings.max_batch_check_s)

    @classmethod
    def from_document(cls, document: Mapping[str, Any]) -> Self:
        """Reads the form that `asdict` writes."""
        return cls(VerifierLimits(**document["verifier"]), document["line_s"], document["batch_s"])


class LineClock:
    """The clock of one batch: limits the processor time of its lines, each and together.

    It must be used in the main thread, because the limit is a signal.
    """

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


def too_expensive(limit_s: float) -> InvalidInput:
    return InvalidInput(
        f"checking it takes more than {limit_s:g} s of processor time (PONDER_MAX_CHECK_S)", code="too_expensive"
    )
