"""Passes an answer that contains texts."""

from __future__ import annotations

from ponder.domain.verifier import Contains
from ponder_worker.verify.case import Judgement

_SHOWN = 100


def examine(answer: str, spec: Contains, reference: str) -> Judgement:
    place = answer.casefold() if spec.ignore_case else answer
    missing = [text for text in spec.texts if (text.casefold() if spec.ignore_case else text) not in place]
    passed = not missing if spec.need == "all" else len(missing) < len(spec.texts)
    wanted = "the answer does not contain" if spec.need == "all" else "the answer contains none of the texts, such as"
    return Judgement.of(passed, f"{wanted} {missing[0][:_SHOWN]!r}" if missing else "")
