"""Passes an answer that chooses the same letter as the reference."""

from __future__ import annotations

from ponder.domain.state import Verdict
from ponder.domain.verifier import Choice
from ponder_worker.answers.reading import letter
from ponder_worker.verify.case import Judgement


def examine(answer: str, spec: Choice, reference: str) -> Judgement:
    found, wanted = letter(answer), letter(reference)
    if wanted is None:
        return Judgement(Verdict.UNVERIFIED, "the reference names no choice")
    if found is None:
        return Judgement.of(False, "the answer names no choice")
    return Judgement.of(found == wanted, "the choice is not the expected one")
