"""What settled jobs have taught about the batches of which jobs are here."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from ponder_worker.protocol import Sums


class Learned:
    """Sums by batch, as Postgres last told them: with a claim, or after a tick that settled some of its jobs."""

    def __init__(self) -> None:
        self._sums: dict[str, Sums] = {}

    def take(self, told: Mapping[str, Sums], batch_ids: Iterable[str]) -> None:
        """batch_ids: of the jobs that are here; of other batches nobody asks any more."""
        here = set(batch_ids)
        known = {**self._sums, **told}
        self._sums = {batch_id: sums for batch_id, sums in known.items() if batch_id in here}

    def of(self, batch_id: str) -> Mapping[str, float]:
        return self._sums.get(batch_id, {})
