"""Faults of workers: they are killed, told to stop, frozen, cut off, poisoned."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from contextlib import suppress

from fault_injection.fault import Disturbance, Kind, Scene, next_settled
from fault_injection.service import LEASE_S, Service, send
from fault_injection.testbed import Testbed
from fault_injection.workload import POISON
from sqlalchemy import text
from sqlalchemy.exc import SQLAlchemyError

_POISON_WORKS_AFTER_S = 0.5


def _killed(scene: Scene) -> Disturbance:
    is_over = _handed_on(scene.testbed, scene.worker)
    _hit(scene, "worker_killed")
    send(signal.SIGKILL, [scene.worker.pid])
    return Disturbance(is_over)


def _engine_killed(scene: Scene) -> Disturbance:
    is_over = _handed_on(scene.testbed, scene.worker)
    _hit(scene, "engine_killed")
    send(signal.SIGKILL, filter(None, [scene.worker.engine_pid()]))
    return Disturbance(is_over)


def _verifier_killed(scene: Scene) -> Disturbance:
    is_over = next_settled(scene.testbed)
    if pids := scene.worker.verifier_pids():
        send(signal.SIGKILL, [scene.rng.choice(pids)])
    return Disturbance(is_over)


def _told_to_stop(scene: Scene) -> Disturbance:
    is_over = _handed_on(scene.testbed, scene.worker)
    send(signal.SIGTERM, [scene.worker.pid])
    return Disturbance(is_over)


def _frozen_briefly(scene: Scene) -> Disturbance:
    """The whole machine, so to speak."""
    return _freeze(scene, scene.worker.family(), scene.rng.uniform(0.2, 0.6), _has_lease(scene.testbed, scene.worker))


def _frozen(scene: Scene) -> Disturbance:
    pids, is_over = scene.worker.family(), _handed_on(scene.testbed, scene.worker)
    _hit(scene, "worker_frozen")
    return _freeze(scene, pids, scene.rng.uniform(1.4, 2.0), is_over)


def _engine_frozen(scene: Scene) -> Disturbance:
    pids, is_over = list(filter(None, [scene.worker.engine_pid()])), _handed_on(scene.testbed, scene.worker)
    _hit(scene, "engine_frozen")
    return _freeze(scene, pids, scene.rng.uniform(1.4, 2.0), is_over)


def _frozen_in_transaction(scene: Scene) -> Disturbance:
    """A tick waits for its own row, which we hold; then it is frozen; then it gets the row."""
    is_over, pids = _handed_on(scene.testbed, scene.worker), scene.worker.family()
    _hit(scene, "worker_frozen_in_transaction")
    disturbance = None
    try:
        with scene.testbed.observer.begin() as connection:
            row = text("SELECT 1 FROM incarnations WHERE pid = :pid FOR UPDATE")
            connection.execute(row, {"pid": scene.worker.pid})
            _wait_for_lock(scene)
            disturbance = _freeze(scene, pids, scene.rng.uniform(1.4, 2.0), is_over)
    except SQLAlchemyError:  # another fault took Postgres away; who is frozen already must be healed
        if disturbance is None:
            raise
    return disturbance


def _cut_off(scene: Scene) -> Disturbance:
    """Nothing reaches it and nothing leaves it, for longer than its lease."""
    is_over, links = _handed_on(scene.testbed, scene.worker), tuple(scene.worker.links.values())
    _hit(scene, "worker_cut_off")
    for link in links:
        link.darken()

    def heal() -> None:
        for link in links:
            link.reset()
            link.lighten()

    return Disturbance(is_over, scene.rng.uniform(1.4, 2.0) * LEASE_S, heal)


def _poison(scene: Scene) -> Disturbance:
    """A job that kills whoever holds it for a while. It is over when it has been given up."""
    submission = scene.workload.submit(POISON, 1)
    testbed = scene.testbed
    is_settled = "SELECT count(*) FROM jobs WHERE batch_id = :id AND state <> 'pending'"

    def is_over() -> bool:
        _kill_holder(testbed, submission.batch_id)
        return bool(testbed.scalar(is_settled, id=submission.batch_id))

    return Disturbance(is_over)


WORKER_FAULTS = (
    Kind("worker_killed", "worker", _killed),
    Kind("engine_killed", "worker", _engine_killed),
    Kind("verifier_killed", "worker", _verifier_killed),
    Kind("worker_told_to_stop", "worker", _told_to_stop),
    Kind("worker_frozen_briefly", "worker", _frozen_briefly),
    Kind("worker_frozen", "worker", _frozen),
    Kind("engine_frozen", "worker", _engine_frozen),
    Kind("worker_frozen_in_transaction", "worker", _frozen_in_transaction),
    Kind("worker_cut_off", "worker", _cut_off),
    Kind("poison_job", "poison", _poison),
)


def _hit(scene: Scene, kind: str) -> None:
    scene.testbed.hits[scene.worker.pid].append(kind)


def _freeze(scene: Scene, pids: list[int], leases: float, is_over: Callable[[], bool]) -> Disturbance:
    send(signal.SIGSTOP, pids)
    return Disturbance(is_over, leases * LEASE_S, lambda: send(signal.SIGCONT, pids))


def _handed_on(testbed: Testbed, worker: Service) -> Callable[[], bool]:
    """Whether every job that the worker holds now is settled or in other hands; the next settled job if it has none."""
    held = "SELECT job_id FROM attempts JOIN incarnations ON incarnations.id = incarnation_id WHERE pid = :pid"
    jobs = [row.job_id for row in testbed.rows(f"{held} AND attempts.ended_at IS NULL", pid=worker.pid)]
    if not jobs:
        return next_settled(testbed)
    left = """
        SELECT count(*) FROM jobs WHERE id = ANY(:jobs) AND state = 'pending' AND NOT EXISTS (
            SELECT FROM attempts JOIN incarnations ON incarnations.id = incarnation_id
            WHERE job_id = jobs.id AND attempts.ended_at IS NULL AND pid <> :pid)
    """
    pid = worker.pid
    return lambda: testbed.scalar(left, jobs=jobs, pid=pid) == 0


def _has_lease(testbed: Testbed, worker: Service) -> Callable[[], bool]:
    """Whether its lease was extended after this call, or another fault has ended it."""
    lease = "FROM incarnations WHERE pid = :pid AND state <> 'ended'"
    pid = worker.pid
    before = testbed.scalar(f"SELECT max(lease_until) {lease}", pid=pid)
    changed = f"SELECT NOT EXISTS (SELECT {lease} AND lease_until = CAST(:before AS timestamptz))"
    return lambda: bool(testbed.scalar(changed, pid=pid, before=before))


def _wait_for_lock(scene: Scene) -> None:
    """For a tick or two: while Postgres is slow, the worker may come too late to be caught inside."""
    waiting = "SELECT count(*) FROM pg_stat_activity WHERE application_name = :name AND wait_event_type = 'Lock'"
    give_up_at = time.monotonic() + LEASE_S / 4
    while time.monotonic() < give_up_at:
        if scene.testbed.scalar(waiting, name=scene.worker.name):
            return
        time.sleep(0.02)


def _kill_holder(testbed: Testbed, batch_id: str) -> None:
    holder = """
        SELECT pid FROM jobs JOIN attempts ON job_id = jobs.id JOIN incarnations ON incarnations.id = incarnation_id
        WHERE jobs.batch_id = :id AND attempts.ended_at IS NULL
          AND attempts.started_at < clock_timestamp() - :after_s * interval '1 second'
    """
    for row in testbed.rows(holder, id=batch_id, after_s=_POISON_WORKS_AFTER_S):
        if "poison_job" not in testbed.hits[row.pid] and row.pid in [worker.pid for worker in testbed.workers]:
            testbed.hits[row.pid].append("poison_job")
            with suppress(ProcessLookupError):
                os.kill(row.pid, signal.SIGKILL)
