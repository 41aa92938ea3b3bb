"""Lessons of settled jobs about the batches of the jobs in this process."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from ponder_worker.protocol import Sums


class Learned:
    """Keeps the sums of each batch as the parent last read them from Postgres: with a claim or after a tick."""

    def __init__(self) -> None:
        self._sums: dict[str, Sums] = {}

    def take(self, told: Mapping[str, Sums], batch_ids: Iterable[str]) -> None:
        """Takes newer sums, and forgets batches that are not in `batch_ids`, which names those of the jobs here."""
        here = set(batch_ids)
        known = {**self._sums, **told}
        self._sums = {batch_id: sums for batch_id, sums in known.items() if batch_id in here}

    def of(self, batch_id: str) -> Mapping[str, float]:
        return self._sums.get(batch_id, {})
