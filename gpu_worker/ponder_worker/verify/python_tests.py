"""A program passes its tests."""

from __future__ import annotations

from ponder.domain.verifier import PythonTests
from ponder_worker.verify.case import Judgement


def examine(answer: str, spec: PythonTests, reference: str) -> Judgement:
    return Judgement.of(False, "not run yet")
