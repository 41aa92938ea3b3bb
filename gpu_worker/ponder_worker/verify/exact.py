"""Equal character by character, outer spaces apart."""

from __future__ import annotations

from ponder_worker.verify.case import Judgement


def examine(answer: str, reference: str) -> Judgement:
    return Judgement.of(answer.strip() == reference.strip(), "the answer is not the expected one")
