"""Acting on a message: wait for room, claim the shard in Postgres, hand its jobs to the engine process."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

import structlog
from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError

from ponder.failure import brief
from ponder.jobs.claim import Claim, Offer, claim, keep, look
from ponder.jobs.tracing.origin import origin_of
from ponder_worker.parent.engine_handle import EngineHandle
from ponder_worker.parent.job_traces import JobTraces
from ponder_worker.parent.worker_capacity import WorkerCapacity
from ponder_worker.protocol import Admit, AdmittedJob

_log = structlog.get_logger(__name__)

_RETRY_S = 0.5
_PATIENCE_S = 2.0
"""A full worker gives a message back after this long: to an idle worker, or to a more urgent shard behind it."""
_KEEP_S = 5.0
"""Well within the time after which a message counts as lost."""


class Intake:
    """Takes shards in. `on_end` is told, once or more, when this incarnation must end.

    It gets LeaseLost when Postgres refused the incarnation, or a bug of ours: what was claimed by then would never
    reach the engine process.
    """

    def __init__(
        self,
        *,
        database: Engine,
        incarnation_id: str,
        fingerprint: str,
        capacity: WorkerCapacity,
        engine: EngineHandle,
        on_end: Callable[[Exception], None],
        traces: JobTraces | None = None,
    ) -> None:
        self._database = database
        self._incarnation_id = incarnation_id
        self._fingerprint = fingerprint
        self._capacity = capacity
        self._engine = engine
        self._on_end = on_end
        self._traces = traces
        self._taken: set[int] = set()

    def take(self, shard_id: int) -> bool:
        """Returns whether the message is done with: the shard is handed over, or cannot be had. If not, give it back.

        May wait for room, or for Postgres.
        """
        while not self._capacity.is_closed:
            try:
                return self._take(shard_id)
            except (SQLAlchemyError, OSError) as error:
                # It is open whether the shard was claimed, and only this incarnation may find out.
                _log.warning("intake_waits_for_postgres", shard=shard_id, error=brief(error))
                self._capacity.wait_until_closed(_RETRY_S)
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
                return not self._capacity.is_closed
        elif not self._capacity.wait_for_room(offer.estimated_tokens, _PATIENCE_S):
            return False
        began_s = time.monotonic()
        with self._database.begin() as connection:
            claimed = claim(connection, shard_id, self._incarnation_id)
        if claimed is not None:
            self._taken.add(shard_id)
            self._hand_over(claimed, offer, self._trace(claimed, began_s))
        return True

    def _trace(self, claimed: Claim, began_s: float) -> Mapping[int, int]:
        """Returns the spans of the attempts that are traced. A claim that cannot be traced is handed over without."""
        if self._traces is None:
            return {}
        try:
            with self._database.connect() as connection:
                origin = origin_of(connection, claimed.shard_id)
            return {} if origin is None else self._traces.claim(claimed, origin, began_s=began_s)
        except Exception as error:
            _log.warning("claim_not_traced", shard=claimed.shard_id, error=brief(error))
            return {}

    def _look(self, shard_id: int) -> Offer | None:
        with self._database.connect() as connection:
            return look(connection, shard_id, self._incarnation_id, fingerprint=self._fingerprint)

    def _wait_to_be_alone(self, shard_id: int) -> bool:
        """Finishes what is held and takes nothing else, however long that takes: a suspect shard must have its turn.

        Returns False if the worker is leaving, or the shard can no longer be had.
        """
        while not self._capacity.wait_until_empty(_KEEP_S):
            if self._capacity.is_closed:
                return False
            with self._database.begin() as connection:
                if not keep(connection, shard_id):
                    return False
        return True

    def _hand_over(self, claimed: Claim, offer: Offer, spans: Mapping[int, int]) -> None:
        self._capacity.add(claimed.jobs, offer.estimated_tokens, alone=offer.runs_alone)
        self._engine.send(_admit(claimed, spans))
        _log.info(
            "shard_taken",
            shard=claimed.shard_id,
            batch=claimed.jobs[0].batch_id,
            num_jobs=len(claimed.jobs),
            estimated_tokens=offer.estimated_tokens,
        )


def _admit(claimed: Claim, spans: Mapping[int, int]) -> Admit:
    jobs = tuple(
        AdmittedJob(
            job.job_id,
            job.tenant_id,
            job.batch_id,
            claimed.lane,
            job.request,
            tuple(job.deltas),
            attempt_span=spans.get(job.job_id),
        )
        for job in claimed.jobs
    )
    learned = {job.batch_id: dict(claimed.learned) for job in claimed.jobs}
    former = {job.batch_id: dict(claimed.former) for job in claimed.jobs}
    return Admit(jobs, learned, former, clock_s=claimed.now.timestamp() - time.monotonic())
