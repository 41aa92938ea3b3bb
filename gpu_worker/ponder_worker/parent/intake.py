"""What a message brings about: wait for room, claim the shard in Postgres, hand its jobs over."""

from __future__ import annotations

from collections.abc import Callable

import structlog
from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError

from ponder.failure import brief
from ponder.jobs.claim import Claim, Offer, claim, keep, look
from ponder_worker.parent.engine_handle import EngineHandle
from ponder_worker.parent.worker_capacity import WorkerCapacity

_log = structlog.get_logger(__name__)

_RETRY_S = 0.5
_PATIENCE_S = 2.0
"""A full worker gives a message back after this long: to an idle worker, or to a more urgent shard behind it."""
_KEEP_S = 5.0
"""Well within the time after which a message counts as lost."""


class Intake:
    """Takes shards in. `on_end` is told, once or more, when this incarnation must end.

    It is LeaseLost when Postgres refused us, or a bug of ours: what was claimed by then would never be handed over.
    """

    def __init__(
        self,
        *,
        database: Engine,
        incarnation_id: str,
        fingerprint: str,
        holding: WorkerCapacity,
        engine: EngineHandle,
        on_end: Callable[[Exception], None],
    ) -> None:
        self._database = database
        self._incarnation_id = incarnation_id
        self._fingerprint = fingerprint
        self._holding = holding
        self._engine = engine
        self._on_end = on_end
        self._taken: set[int] = set()

    def take(self, shard_id: int) -> bool:
        """Whether the message has done its work: the shard is handed over, or not to be had. If not, give it back."""
        while not self._holding.is_closed:
            try:
                return self._take(shard_id)
            except (SQLAlchemyError, OSError) as error:
                # Whether it was claimed is open, and only we may find out.
                _log.warning("intake_waits_for_postgres", shard=shard_id, error=brief(error))
                self._holding.wait_until_closed(_RETRY_S)
            except Exception as error:
                self._on_end(error)
                return False
        return False

    def _take(self, shard_id: int) -> bool:
        offer = None if shard_id in self._taken else self._look(shard_id)
        if offer is None:
            return True
        if offer.runs_alone:
            if not self._wait_to_be_alone(shard_id):
                return not self._holding.is_closed
        elif not self._holding.wait_for_room(offer.estimated_tokens, _PATIENCE_S):
            return False
        with self._database.begin() as connection:
            claimed = claim(connection, shard_id, self._incarnation_id)
        if claimed is not None:
            self._taken.add(shard_id)
            self._hand_over(claimed, offer)
        return True

    def _look(self, shard_id: int) -> Offer | None:
        with self._database.connect() as connection:
            return look(connection, shard_id, self._incarnation_id, fingerprint=self._fingerprint)

    def _wait_to_be_alone(self, shard_id: int) -> bool:
        """Finishes what is held and takes nothing else, however long it takes: a suspect must have its turn, too.

        Whether it came; if not, the worker leaves, or the shard is not to be had any more.
        """
        while not self._holding.wait_until_empty(_KEEP_S):
            if self._holding.is_closed:
                return False
            with self._database.begin() as connection:
                if not keep(connection, shard_id):
                    return False
        return True

    def _hand_over(self, claimed: Claim, offer: Offer) -> None:
        self._holding.add(claimed.jobs, offer.estimated_tokens, alone=offer.runs_alone)
        jobs = [
            {
                "job_id": job.job_id,
                "tenant_id": job.tenant_id,
                "batch_id": job.batch_id,
                "request": job.request,
                "deltas": job.deltas,
            }
            for job in claimed.jobs
        ]
        learned = {job.batch_id: claimed.learned for job in claimed.jobs}
        self._engine.send({"type": "admit", "jobs": jobs, "learned": learned})
        _log.info("shard_taken", shard=claimed.shard_id, num_jobs=len(jobs), estimated_tokens=offer.estimated_tokens)
