"""Passes an answer that a regular expression matches. It may backtrack for ever, so its process has a time limit."""

from __future__ import annotations

import re

from ponder.domain.verifier import Regex
from ponder_worker.verify.case import Judgement

_SHOWN = 200


def examine(answer: str, spec: Regex, reference: str) -> Judgement:
    pattern = re.compile(spec.pattern, re.IGNORECASE if spec.ignore_case else 0)
    shown = spec.pattern[:_SHOWN]
    if spec.match == "full":
        return Judgement.of(pattern.fullmatch(answer) is not None, f"the answer as a whole does not match {shown}")
    return Judgement.of(pattern.search(answer) is not None, f"nothing in the answer matches {shown}")
