"""A case for a verifier, and the judgement that it returns."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from ponder.domain.state import Verdict
from ponder.domain.verifier import VERIFIER, VERIFIER_NAMES, Verifier


@dataclass(frozen=True)
class Case:
    """An answer to judge. `verifier` is the spec as the request document has it, or None if there is none."""

    verifier: Mapping[str, Any] | None
    answer: str | None
    reference: str | None = None

    @cached_property
    def spec(self) -> Verifier | None:
        """The spec as a model, or None if this worker does not know the verifier. Raises pydantic's ValidationError."""
        if self.verifier is None or self.verifier.get("name") not in VERIFIER_NAMES:
            return None
        return VERIFIER.validate_python(self.verifier)


@dataclass(frozen=True, slots=True)
class Judgement:
    """A verdict. `reason` says in words for a model why it is not `passed`."""

    verdict: Verdict
    reason: str | None = None

    @classmethod
    def of(cls, passed: bool, reason: str) -> Judgement:
        return cls(Verdict.PASSED) if passed else cls(Verdict.FAILED, reason)
