"""Limits on the cost of checking a tenant's input."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Self

from ponder.domain.verifier_check import VerifierLimits
from ponder.errors import InvalidInput
from ponder.settings import Settings


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


def too_expensive(limit_s: float) -> InvalidInput:
    return InvalidInput(
        f"its check takes more than {limit_s:g} s of processor time (PONDER_MAX_CHECK_S)", code="too_expensive"
    )
