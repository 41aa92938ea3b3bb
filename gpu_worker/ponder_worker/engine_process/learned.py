"""Lessons of settled jobs about the batches of the jobs in this process."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping

from ponder_worker.protocol import Sums


class Learned:
    """Keeps the sums of each batch as the parent last read them from Postgres: with a claim or after a tick.

    Names are `scope:name`. What former batches taught comes with each claim, and is the same for all batches.
    """

    def __init__(self) -> None:
        self._sums: dict[str, Sums] = {}
        self._former: Sums = {}

    def take(self, told: Mapping[str, Sums], batch_ids: Iterable[str]) -> None:
        """Takes newer sums, and forgets batches that are not in `batch_ids`, which names those of the jobs here."""
        here = set(batch_ids)
        known = {**self._sums, **told}
        self._sums = {batch_id: sums for batch_id, sums in known.items() if batch_id in here}

    def take_former(self, told: Sums) -> None:
        self._former |= told

    def of(self, batch_id: str, scope: str) -> Mapping[str, float]:
        """Returns the sums of a scope by name: those of the batch, and of former ones."""
        sums: defaultdict[str, float] = defaultdict(float)
        for known in (self._sums.get(batch_id, {}), self._former):
            for name, value in known.items():
                if name.startswith(scope):
                    sums[name.removeprefix(scope)] += value
        return sums
