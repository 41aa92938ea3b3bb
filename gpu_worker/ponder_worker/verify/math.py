"""Mathematically equal, by math-verify, whose own time limits are off: they end as "not equal". The caller sets one."""

from __future__ import annotations

from typing import Any

from math_verify import parse, verify

from ponder_worker.verify.case import Judgement

_ANCHORS = ("$", r"\boxed", r"\(", r"\[")
_LATEX = frozenset("\\^_{")


def examine(answer: str, reference: str) -> Judgement:
    wanted, found = _parse(reference), _parse(answer)
    if not found:
        return Judgement.of(False, "the answer is no mathematics")
    return Judgement.of(
        bool(verify(wanted, found, timeout_seconds=None)), "the answer is not mathematically equal to the expected one"
    )


def _parse(text: str) -> list[Any]:
    """An answer taken out of its box has lost the marks by which formulas are found."""
    if not any(anchor in text for anchor in _ANCHORS) and _LATEX & set(text):
        found: list[Any] = parse(f"${text}$", parsing_timeout=None)
        if found:
            return found
    found = parse(text, parsing_timeout=None)
    return found
