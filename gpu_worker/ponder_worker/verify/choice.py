"""The letter of a multiple-choice question."""

from __future__ import annotations

from ponder_worker.search.reading import letter
from ponder_worker.verify.case import Judgement


def examine(answer: str, reference: str) -> Judgement:
    found, wanted = letter(answer), letter(reference)
    if found is None or wanted is None:
        return Judgement.of(False, "the answer names no choice" if found is None else "the reference names no choice")
    return Judgement.of(found == wanted, "the choice is not the expected one")
