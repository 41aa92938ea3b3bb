"""Compares two cells job by job: the same problem and the same seed on both sides."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Literal

from ponder.bench.figures.interval_estimate import Estimate, bootstrap, mean
from ponder.bench.grid import CellKey
from ponder.bench.job_record import JobRecord
from ponder.bench.suite import Part
from ponder.errors import InvalidInput

Meaning = Literal["higher", "lower", "may be chance"]

_MEASURES: dict[str, Callable[[JobRecord], float | None]] = {
    "accuracy": lambda one: float(one.has_passed),
    "output_tokens": lambda one: one.completion_tokens,
    "thinking_tokens": lambda one: one.thinking_tokens,
    "first_visible_token_s": lambda one: one.first_visible_token_s,
    "end_to_end_s": lambda one: one.end_to_end_s,
    "direct_nanodollars": lambda one: one.direct_nanodollars,
}
_Pair = tuple[JobRecord, JobRecord]


class Measure(Part):
    """A mean on both sides, and B's less A's with its interval."""

    name: str
    a: float
    b: float
    difference: Estimate
    meaning: Meaning


class Difference(Part):
    """How cell B differs from cell A, over the problems and seeds that both ran."""

    a: CellKey
    b: CellKey
    num_problems: int
    num_pairs: int
    measures: tuple[Measure, ...]

    def measure(self, name: str) -> Measure | None:
        return next((one for one in self.measures if one.name == name), None)


def difference_of(a_key: CellKey, a: Sequence[JobRecord], b_key: CellKey, b: Sequence[JobRecord]) -> Difference:
    """Pairs jobs by problem and seed, and resamples problems. Raises InvalidInput if no problem is in both."""
    of_b = {(one.problem, one.seed): one for one in b}
    pairs: defaultdict[str, list[_Pair]] = defaultdict(list)
    for one in a:
        if (other := of_b.get((one.problem, one.seed))) is not None:
            pairs[one.problem].append((one, other))
    if not pairs:
        raise InvalidInput(f"{a_key.label} and {b_key.label} have no problem with the same seed in common")
    measures = (_measure(name, read, list(pairs.values())) for name, read in _MEASURES.items())
    return Difference(
        a=a_key,
        b=b_key,
        num_problems=len(pairs),
        num_pairs=sum(map(len, pairs.values())),
        measures=tuple(one for one in measures if one is not None),
    )


def _measure(
    name: str, read: Callable[[JobRecord], float | None], problems: Sequence[Sequence[_Pair]]
) -> Measure | None:
    """Returns None for a measure that no pair has on both sides."""
    means: list[tuple[float, float]] = []
    for pairs in problems:
        found = [(x, y) for one, other in pairs if (x := read(one)) is not None and (y := read(other)) is not None]
        if found:
            means.append((sum(x for x, _ in found) / len(found), sum(y for _, y in found) / len(found)))
    a, b = mean([x for x, _ in means]), mean([y for _, y in means])
    if a is None or b is None:
        return None
    difference = bootstrap([y - x for x, y in means], mean)
    meaning: Meaning = "higher" if b > a else "lower"
    return Measure(
        name=name, a=a, b=b, difference=difference, meaning="may be chance" if difference.may_be_zero else meaning
    )
