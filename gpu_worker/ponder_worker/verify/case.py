"""What is to be judged, and what was found."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from ponder.domain.state import Verdict
from ponder.domain.verifier import VERIFIER, VERIFIER_NAMES, Verifier


@dataclass(frozen=True)
class Case:
    """verifier: the spec as the request document has it; None: nobody judges."""

    verifier: Mapping[str, Any] | None
    answer: str | None
    reference: str | None = None

    @cached_property
    def spec(self) -> Verifier | None:
        """None also for a verifier that this worker does not know. Raises pydantic's ValidationError."""
        if self.verifier is None or self.verifier.get("name") not in VERIFIER_NAMES:
            return None
        return VERIFIER.validate_python(self.verifier)


@dataclass(frozen=True, slots=True)
class Judgement:
    """reason: why it failed or could not be judged, in words that a model could be shown; None where it passed."""

    verdict: Verdict
    reason: str | None = None

    @classmethod
    def of(cls, passed: bool, reason: str) -> Judgement:
        return cls(Verdict.PASSED) if passed else cls(Verdict.FAILED, reason)
