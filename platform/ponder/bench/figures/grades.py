"""Grades of candidates, as far as the jobs of a run tell which are right.

The platform judges the answer that a job returns. Another candidate gets the verdict that the same answer to the same
problem got anywhere in the run. Grades are for reports alone: they exist only after every search has ended.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from fractions import Fraction

from ponder.bench.job_record import JobRecord

_VERDICTS = {"passed": True, "failed": False}
_WHOLE_LITERALS = ("exact", "number", "choice")
"""Verifiers that pass no number or letter but the one in the reference."""
_NUMBER = re.compile(r"-?\d+(?:\.\d+)?")


class Grades:
    """The verdicts of a run by problem and answer. `references` and `verifier` are those of the data set."""

    def __init__(
        self, records: Iterable[JobRecord], references: Mapping[str, str | None], verifier: str | None
    ) -> None:
        self._references = references
        self._compares_literally = verifier in _WHOLE_LITERALS
        self._known = {(one.problem, one.answer): _VERDICTS[one.verdict] for one in records if one.verdict in _VERDICTS}

    def grade(self, problem: str, answer: str | None) -> bool | None:
        """Returns whether an answer is right, or None where nobody has judged it. No answer is a wrong one."""
        if answer is None:
            return False
        known = self._known.get((problem, answer))
        if known is not None:
            return known
        reference = self._references.get(problem)
        if reference is None:
            return None
        if answer.strip() == reference.strip():
            return True
        said, wanted = _value(answer), _value(reference)
        is_read = self._compares_literally and said is not None and wanted is not None
        return said == wanted if is_read else None


def _value(text: str) -> Fraction | str | None:
    """Returns the number or letter that a text is, if it is one and nothing else."""
    text = text.strip().replace(",", "")
    if _NUMBER.fullmatch(text):
        return Fraction(text)
    return text.upper() if len(text) == 1 and text.isalpha() else None
