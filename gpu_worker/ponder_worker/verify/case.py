"""What is to be judged, and what was found."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ponder.domain.state import Verdict


@dataclass(frozen=True, slots=True)
class Case:
    """verifier: the spec as the request document has it; None: nobody judges."""

    verifier: Mapping[str, Any] | None
    answer: str | None
    reference: str | None = None


@dataclass(frozen=True, slots=True)
class Judgement:
    """reason: why it failed or could not be judged, in words that a model could be shown; None where it passed."""

    verdict: Verdict
    reason: str | None = None

    @classmethod
    def of(cls, passed: bool, reason: str) -> Judgement:
        return cls(Verdict.PASSED) if passed else cls(Verdict.FAILED, reason)
