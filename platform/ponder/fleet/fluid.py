"""Work by deadline against the tokens that workers make, both as fluids: the earliest deadline is served first."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import accumulate

_SLIP = 1e-9
"""A relative error of sums of floats."""


@dataclass(frozen=True, slots=True)
class Group:
    """Workers that are alike. They make tokens from `ready_in_s` until `until_s`."""

    num_workers: int
    tokens_per_s: float
    ready_in_s: float = 0.0
    until_s: float = math.inf

    def tokens(self, by_s: float) -> float:
        """Returns the tokens that the group has made at a moment."""
        busy_s = min(by_s, self.until_s) - self.ready_in_s
        return self.num_workers * self.tokens_per_s * busy_s if busy_s > 0 else 0.0


@dataclass(frozen=True, slots=True)
class Demand:
    """The work that is due: `totals[i]` tokens by `dues_s[i]`, both increasing."""

    dues_s: tuple[float, ...]
    totals: tuple[float, ...]

    @classmethod
    def of(cls, loads: Iterable[tuple[float, float]]) -> Demand:
        """Adds up loads of a due time and tokens."""
        by_due: dict[float, float] = {}
        for due_s, tokens in loads:
            if tokens > 0:
                by_due[due_s] = by_due.get(due_s, 0.0) + tokens
        dues = sorted(by_due)
        return cls(tuple(dues), tuple(accumulate(by_due[due] for due in dues)))

    @property
    def total(self) -> float:
        return self.totals[-1] if self.totals else 0.0

    def times(self, factor: float) -> Demand:
        return Demand(self.dues_s, tuple(total * factor for total in self.totals))

    def reachable(self, live: Sequence[Group], soonest_s: float, later_s: float) -> Demand:
        """Returns the work with later due times for what nobody can do in time.

        Until `soonest_s` only the `live` workers work. What they cannot do until then is due at `later_s`.
        """
        early = [
            (due, min(total, sum(group.tokens(due) for group in live)))
            for due, total in zip(self.dues_s, self.totals, strict=True)
            if due <= soonest_s
        ]
        if not early:
            return self
        rest = self.totals[len(early) - 1] - early[-1][1]
        after = [
            (due, total if due >= later_s else total - rest)
            for due, total in zip(self.dues_s[len(early) :], self.totals[len(early) :], strict=True)
        ]
        before = sum(due < later_s for due, _ in after)
        moved = [(later_s, (after[before - 1] if before else early[-1])[1] + rest)]
        points = [*early, *after[:before], *(moved if rest > 0 else ()), *after[before:]]
        return Demand(tuple(due for due, _ in points), tuple(total for _, total in points))

    def prefix(self, length: int) -> Demand:
        """Returns the work that is due first."""
        return Demand(self.dues_s[:length], self.totals[:length])

    def is_met(self, groups: Sequence[Group]) -> bool:
        """Returns whether everything is done when it is due, which is the test for the earliest deadline first."""
        return all(
            sum(group.tokens(due) for group in groups) >= total * (1 - _SLIP)
            for due, total in zip(self.dues_s, self.totals, strict=True)
        )

    def late_tokens(self, groups: Sequence[Group]) -> float:
        """Returns the tokens that are done after they are due, or never."""
        late, before = 0.0, 0.0
        for due, total in zip(self.dues_s, self.totals, strict=True):
            missing = total * (1 - _SLIP) - sum(group.tokens(due) for group in groups)
            late += min(max(missing, 0.0), total - before)
            before = total
        return late

    def finished_in_s(self, groups: Sequence[Group]) -> float | None:
        """Returns when the last token is made, or None if that is never."""
        if not self.totals:
            return 0.0
        return _reached(lambda at: sum(group.tokens(at) for group in groups), self.total, groups)


def _reached(made: Callable[[float], float], total: float, groups: Sequence[Group]) -> float | None:
    """Returns the moment at which the groups have made a total: they are linear between their bends."""
    bends = sorted({0.0, *(at for group in groups for at in (group.ready_in_s, group.until_s) if at < math.inf)})
    for start, end in zip(bends, [*bends[1:], math.inf], strict=True):
        rate = sum(
            group.num_workers * group.tokens_per_s for group in groups if group.ready_in_s <= start < group.until_s
        )
        missing = total - made(start)
        if missing <= 0:
            return start
        if rate > 0 and (at := start + missing / rate) <= end:
            return at
    return None
