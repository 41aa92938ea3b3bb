"""Passes an answer that is mathematically equal to the reference."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterator, Sequence
from types import FrameType

from ponder.domain.state import Verdict
from ponder.domain.verifier import Math
from ponder_worker.answers.equality import are_identical, assigned, identity, is_words
from ponder_worker.answers.mark import of_reference
from ponder_worker.answers.numeral import read_numeral
from ponder_worker.answers.parts import split_relation
from ponder_worker.answers.writing import plain
from ponder_worker.verify.case import Judgement
from ponder_worker.verify.mathematics.comparison import Comparison
from ponder_worker.verify.mathematics.members import parts_of, union
from ponder_worker.verify.mathematics.quantity import is_formula
from ponder_worker.verify.mathematics.solution import contradicts_itself
from ponder_worker.verify.mathematics.written import counts_as_written

LIMIT_S = 5.0
_DIFFERENT = "the answer is not mathematically equal to the expected one"
_UNREADABLE = "the reference is no mathematics that can be read as a whole, and the answer is not the same text"
_SENTENCE = 4
"""Words. A text of as many is a statement, and other words may state the same."""


def examine(answer: str, spec: Math, reference: str) -> Judgement:
    """Calls the answer `unverified` where the two cannot be compared. Identical texts always pass.

    Runs in a main thread only, because an alarm limits its time.
    """
    try:
        with _within(LIMIT_S):
            return _examine(of_reference(answer), spec, of_reference(reference))
    except _TookTooLong:
        return Judgement(Verdict.UNVERIFIED, f"the comparison took too long: more than {LIMIT_S:g} s")
    except Exception as error:  # sympy raises errors of any type
        return Judgement(Verdict.UNVERIFIED, f"the two could not be compared ({type(error).__name__})")


def _examine(answer: str, spec: Math, reference: str) -> Judgement:
    if are_identical(answer, reference):
        return Judgement(Verdict.PASSED)
    comparison, found, wanted = Comparison(spec), plain(answer), plain(reference)
    if not wanted:
        return Judgement(Verdict.UNVERIFIED, _UNREADABLE)
    if comparison.same(found, wanted):
        return Judgement(Verdict.PASSED)
    return Judgement.of(False, _DIFFERENT) if reads(wanted) else Judgement(Verdict.UNVERIFIED, _UNREADABLE)


def reads(text: str) -> bool:
    """Returns whether all of a text is understood, so that another answer may be called wrong."""
    if read_numeral(text) is not None or counts_as_written(text):
        return True
    if is_words(identity(text)):
        return len(text.split()) < _SENTENCE
    if (items := _items(text)) is not None:
        return all(map(reads, items))
    relation = split_relation(text)
    if relation is not None and contradicts_itself(relation):
        return False
    if relation is not None and (pair := assigned(relation)) is not None:
        return reads(pair[1])
    return is_formula(text)


def _items(text: str) -> Sequence[str] | None:
    parts = parts_of(text)
    return parts.items if parts is not None else union(text)


class _TookTooLong(BaseException):
    """Not an Exception, because libraries catch those and take the text for one that cannot be read."""


@contextlib.contextmanager
def _within(limit_s: float) -> Iterator[None]:
    """Raises _TookTooLong in its body after so many seconds of processor time, of which a busy machine gives less."""

    def ring(number: int, frame: FrameType | None) -> None:
        raise _TookTooLong

    before = signal.signal(signal.SIGPROF, ring)
    signal.setitimer(signal.ITIMER_PROF, limit_s)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)
