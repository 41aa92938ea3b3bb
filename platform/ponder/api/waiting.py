"""Explains why a batch or job waits: {reason, message, tokens_ahead}."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC
from typing import Any, Literal

from sqlalchemy import Connection, Row, text

from ponder.api.services import unix
from ponder.domain.budget import Allowance, Limit, last_to_renew
from ponder.domain.money import dollars
from ponder.domain.state import BatchState, Lane, PilotState, is_final
from ponder.domain.storable import JsonObject
from ponder.fleet.backlog import Backlog, LiveWorkers, Weights, backlog
from ponder.fleet.capacity import live_groups, workers_needed
from ponder.fleet.fluid import Demand
from ponder.fleet.problem import Load, Situation
from ponder.fleet.proposing.scope import is_active
from ponder.fleet.roster import is_starting
from ponder.fleet.situation import situations
from ponder.jobs.budgets.need import least_needs
from ponder.jobs.dispatching.dispatcher_status import DispatcherStatus, dispatcher_status
from ponder.jobs.piloting.pilot import PilotStatus, pilots
from ponder.ledger.spending import allowances

Reason = Literal[
    "dispatcher", "validating", "no_worker", "late", "queued", "quota", "window", "paused", "budget", "pilot"
]

_ALIVE = text(
    """
    SELECT count(*) FROM incarnations
    WHERE model = :model AND (fingerprint = :fingerprint OR fingerprint IS NULL) AND state IN ('loading', 'ready')
      AND lease_until > clock_timestamp()
    """
)
_SHARD_OF_JOB = text(
    """
    SELECT id, state, model, fingerprint FROM shards
    WHERE batch_id = :batch_id AND state <> 'finished' AND :job_id = ANY(job_ids) ORDER BY id DESC LIMIT 1
    """
)
# A pending job is in an open shard or not cut yet. To look for it by its state would be to read all settled jobs.
_NEXT_JOB = text(
    """
    (SELECT jobs.id, jobs.batch_id, line, jobs.model, jobs.fingerprint
     FROM shards CROSS JOIN LATERAL unnest(job_ids) AS job_id JOIN jobs ON jobs.id = job_id AND jobs.state = 'pending'
     WHERE shards.batch_id = :batch_id AND shards.state <> 'finished'
     ORDER BY line LIMIT 1)
    UNION ALL
    (SELECT first.* FROM portions CROSS JOIN LATERAL (
         SELECT id, batch_id, line, model, fingerprint FROM jobs
         WHERE batch_id = portions.batch_id AND model = portions.model AND fingerprint = portions.fingerprint
           AND line > cut_until AND line <= last_line
         ORDER BY line LIMIT 1
     ) AS first
     WHERE portions.batch_id = :batch_id AND NOT CAST(:has_undecided_pilot AS boolean))
    ORDER BY line LIMIT 1
    """
)
_QUEUED = text(
    """
    SELECT coalesce(sum(estimated_tokens), 0) FROM shards JOIN batches ON batches.id = batch_id
    WHERE shards.state = 'queued' AND model = :model AND fingerprint = :fingerprint AND shards.lane = :lane
      AND (published_at < coalesce((SELECT published_at FROM shards WHERE id = :shard_id), 'infinity')
           OR (published_at IS NULL AND (SELECT published_at FROM shards WHERE id = :shard_id) IS NULL
               AND (expires_at, shards.id) < ((SELECT expires_at FROM batches WHERE id = :batch_id),
                                              coalesce(CAST(:shard_id AS bigint), 9223372036854775807))))
    """
)
_UNCUT = text(
    """
    SELECT coalesce(sum(estimated_tokens), 0)
    FROM jobs LEFT JOIN portions USING (batch_id, model, fingerprint)
    WHERE batch_id = :batch_id AND model = :model AND fingerprint = :fingerprint AND state = 'pending'
      AND line > coalesce(cut_until, 0) AND line < :line
    """
)

_QUOTA_REACHED = text(
    """
    SELECT tenants.quota_tokens FROM batches JOIN tenants ON tenants.id = batches.tenant_id
    WHERE batches.id = :batch_id AND quota_tokens <= (
        SELECT coalesce(sum(estimated_tokens), 0) FROM shards
        WHERE shards.tenant_id = tenants.id
          AND (shards.state = 'held' OR (shards.state = 'queued' AND published_at IS NOT NULL))
    )
    """
)

_WEIGHTS = text(
    """
    SELECT model, fingerprint, CAST(extract(epoch FROM expires_at - clock_timestamp()) AS float8) AS due_in_s
    FROM batches JOIN (
        SELECT batch_id, model, fingerprint FROM portions
        UNION
        SELECT batch_id, model, fingerprint FROM shards WHERE state <> 'finished'
    ) AS work ON batch_id = batches.id
    WHERE batches.id = :batch_id ORDER BY model, fingerprint
    """
)

_IS_EXHAUSTED = text("SELECT exhausted_at IS NOT NULL FROM batches WHERE id = :batch_id")


@dataclass(frozen=True, slots=True)
class Stops:
    """The facts that can stop all of a batch: its dispatcher, its pause and budgets, and its pilot."""

    status: DispatcherStatus
    allowance: Allowance | None
    pilot: PilotStatus | None


def why_listed_batch_waits(batch: Row[Any], num_pending: int, is_running: bool, stops: Stops) -> JsonObject | None:
    """Returns the reason if it is the dispatcher, the validation, a pause, or a pilot that waits. Makes no query."""
    if is_final(BatchState(batch.state)) or is_running:
        return None
    if (found := _why_not_begun(batch, stops.status)) is not None:
        return found
    if batch.state != "in_progress" or num_pending == 0:
        return None
    if stops.allowance is not None and stops.allowance.is_paused:
        return _paused(batch.id, 0)
    if stops.pilot is not None and stops.pilot.state is PilotState.WAITING:
        return _piloted(batch.id, stops.pilot, 0)
    return None


def why_batch_waits(
    connection: Connection, batch: Row[Any], num_pending: int, is_running: bool, stops: Stops
) -> JsonObject | None:
    """Returns None if the batch has ended, or if a job runs or nothing is wrong, and it will be done in time."""
    if is_final(BatchState(batch.state)):
        return None
    has_pending = batch.state == "in_progress" and num_pending > 0
    if is_running:
        return _why_late(connection, batch) if has_pending else None
    if (found := _why_not_begun(batch, stops.status)) is not None:
        return found
    return _why_pending_wait(connection, batch, stops) if has_pending else None


def why_job_waits(connection: Connection, job: Row[Any], lane: str) -> JsonObject | None:
    """Returns None if a worker has the job. `job` is pending, with id, batch_id, line, model and fingerprint."""
    stops = Stops(
        dispatcher_status(connection),
        allowances(connection, [job.batch_id]).get(job.batch_id),
        pilots(connection, [job.batch_id]).get(job.batch_id),
    )
    return _why_job_waits(connection, job, lane, stops)


def _why_pending_wait(connection: Connection, batch: Row[Any], stops: Stops) -> JsonObject | None:
    has_undecided_pilot = stops.pilot is not None and stops.pilot.is_undecided
    values = {"batch_id": batch.id, "has_undecided_pilot": has_undecided_pilot}
    job = connection.execute(_NEXT_JOB, values).first()
    if job is None:
        return _why_stopped(connection, batch.id, 0, stops) if stops.pilot is not None else None
    found = _why_job_waits(connection, job, batch.lane, stops)
    if found is None or found["reason"] in ("queued", "quota", "window"):
        return _why_late(connection, batch) or found
    return found


def _why_job_waits(connection: Connection, job: Row[Any], lane: str, stops: Stops) -> JsonObject | None:
    shard = connection.execute(_SHARD_OF_JOB, {"batch_id": job.batch_id, "job_id": job.id}).first()
    if shard is not None and shard.state == "held":
        return None
    # A cascade's job may wait for another model than its first.
    where = job if shard is None else shard
    weights = {"model": where.model, "fingerprint": where.fingerprint}
    queued = {**weights, "lane": lane, "batch_id": job.batch_id, "shard_id": shard.id if shard is not None else None}
    ahead = int(connection.execute(_QUEUED, queued).scalar_one())
    if shard is None:
        uncut = {**weights, "batch_id": job.batch_id, "line": job.line}
        ahead += int(connection.execute(_UNCUT, uncut).scalar_one())
    if not stops.status.is_ok:
        return _reason("dispatcher", _remedy(stops.status), ahead)
    found = _why_stopped(connection, job.batch_id, ahead, stops, is_of_pilot=shard is not None)
    if found is None and not connection.execute(_ALIVE, weights).scalar_one():
        remedy = _remedy_without_worker(connection, where.model)
        message = f"no live worker serves {where.model} with the weights {where.fingerprint}: {remedy}"
        found = _reason("no_worker", message, ahead)
    if found is None and shard is not None:
        found = _reason("queued", f"in the queue behind about {ahead:,} tokens", ahead)
    if found is not None:
        return found
    quota = connection.execute(_QUOTA_REACHED, {"batch_id": job.batch_id}).scalar()
    if quota is not None:
        return _reason("quota", f"your quota of {quota:,} tokens in flight is reached", ahead)
    return _reason("window", f"not in the queue's window yet, behind about {ahead:,} tokens", ahead)


def _remedy_without_worker(connection: Connection, model: str) -> str:
    if not is_active(connection):
        return "start one with `ponder worker`"
    if is_starting(connection, model):
        return "the autoscaler is starting one"
    return "an autoscaler is active, and `ponder fleet log` says what it does"


def _why_late(connection: Connection, batch: Row[Any]) -> JsonObject | None:
    """Returns how many workers would do the batch in time, if those that are live or loading will not.

    What is due before it or interactive is done first. Nothing is said as long as a live worker is on a machine that
    was not measured, or workers are being started.
    """
    workers = LiveWorkers.read(connection)
    for row in connection.execute(_WEIGHTS, {"batch_id": batch.id}).all():
        weights, own = (row.model, row.fingerprint), (batch.lane != Lane.INTERACTIVE, row.due_in_s + 1)
        first = [
            item
            for item in backlog(connection, row.model)
            if item.weights == weights and item.may_run and (item.lane != Lane.INTERACTIVE, item.due_in_s) <= own
        ]
        needed_s = workers.seconds(first)
        # What ready workers do in time needs no closer look.
        if needed_s is None or needed_s <= row.due_in_s:
            continue
        situation = _situation(connection, weights, first, row.due_in_s)
        if situation is None or not _is_late(situation):
            continue
        number = sum(one.num_workers for one in situation.running)
        if is_active(connection) and (not number or is_starting(connection, row.model)):
            continue
        ahead = sum(item.tokens for item in first if item.batch_id != batch.id)
        return _reason("late", _late_words(batch, situation, number), ahead)
    return None


def _situation(connection: Connection, weights: Weights, first: Sequence[Backlog], due_in_s: float) -> Situation | None:
    """Returns the situation of weights as if there were only the work that goes first."""
    for situation in situations(connection, weights[0]):
        if (situation.model, situation.fingerprint) == weights:
            loads = tuple(Load(item.lane, min(item.due_in_s, due_in_s), item.tokens) for item in first)
            return replace(situation, loads=loads)
    return None


def _is_late(situation: Situation) -> bool:
    live = live_groups(situation)
    due_in_s = max((load.due_in_s for load in situation.loads), default=0.0)
    total = Demand.of([(due_in_s, sum(load.tokens for load in situation.loads))])
    return live is not None and not total.is_met(live)


def _late_words(batch: Row[Any], situation: Situation, number: int) -> str:
    enough = workers_needed(situation)
    remedy = "no number of workers would make it" if enough is None else f"{enough:,} would make it"
    there = f"{number:,} worker{'s' * (number != 1)} of {situation.model}"
    return f"with {there} it will not be done by {batch.expires_at.astimezone(UTC):%Y-%m-%d %H:%M} UTC: {remedy}"


def _why_not_begun(batch: Row[Any], status: DispatcherStatus) -> JsonObject | None:
    """Returns the reason if it is the dispatcher or the validation. The dispatcher does that too, and finishes batches,
    so every batch waits for it.
    """
    if not status.is_ok:
        return _reason("dispatcher", _remedy(status), 0)
    if batch.state == "validating":
        trouble = f"; the dispatcher's last round failed: {status.current_error}" if status.current_error else ""
        return _reason("validating", f"the input file is being read{trouble}", 0)
    return None


def _why_stopped(
    connection: Connection, batch_id: str, ahead: int, stops: Stops, *, is_of_pilot: bool = False
) -> JsonObject | None:
    """Returns what has stopped the batch, if anything: a pause, a budget, or the pilot of other jobs."""
    if stops.allowance is not None:
        if stops.allowance.is_paused:
            return _paused(batch_id, ahead)
        if (refused := _why_refused(connection, batch_id, stops.allowance, ahead)) is not None:
            return refused
    if stops.pilot is None or not stops.pilot.is_undecided or is_of_pilot:
        return None
    return _piloted(batch_id, stops.pilot, ahead)


def _paused(batch_id: str, ahead: int) -> JsonObject:
    return _reason("paused", f"the batch is paused: `ponder resume {batch_id}` continues it", ahead)


def _piloted(batch_id: str, pilot: PilotStatus, ahead: int) -> JsonObject:
    return _reason("pilot", f"{pilot.message}{_remedies(batch_id, pilot)}", ahead)


def _remedies(batch_id: str, pilot: PilotStatus) -> str:
    if pilot.state is not PilotState.WAITING:
        return ""
    budget = f", `ponder budget {batch_id}` raises the budget" if pilot.reason == "over_budget" else ""
    return f": `ponder confirm {batch_id}` runs the rest{budget}, `ponder cancel {batch_id}` gives it up"


def _why_refused(connection: Connection, batch_id: str, allowance: Allowance, ahead: int) -> JsonObject | None:
    """Returns which budget admits no further job, if one does and no job runs that may return some of it."""
    least = least_needs(connection, [batch_id]).get(batch_id)
    held_up_by = () if least is None else allowance.held_up_by(least)
    if not held_up_by:
        return None
    limit = last_to_renew(held_up_by)
    return _reason("budget", _words(limit, batch_id), ahead) | {
        "budget": limit.budget.value,
        "renews_at": unix(limit.renews_at),
        "is_exhausted": connection.execute(_IS_EXHAUSTED, {"batch_id": batch_id}).scalar_one(),
    }


def _words(limit: Limit, batch_id: str) -> str:
    spent = []
    if limit.nanodollars is not None:
        spent.append(f"{dollars(limit.spent.nanodollars)} of {dollars(limit.nanodollars)}")
    if limit.tokens is not None:
        spent.append(f"{limit.spent.tokens:,} of {limit.tokens:,} tokens")
    reserved = "" if limit.is_settled else ", running jobs have the rest reserved"
    if limit.renews_at is None:
        remedy = f"`ponder budget {batch_id}` raises it"
    else:
        remedy = f"it renews at {limit.renews_at.astimezone(UTC):%Y-%m-%d %H:%M} UTC, and the batch goes on by itself"
    return f"{' and '.join(spent)} are spent{reserved}, and no further job fits into {limit.budget.words}: {remedy}"


def _remedy(status: DispatcherStatus) -> str:
    """Says what keeps the dispatcher from its work, and what to do about it."""
    if status.is_running:
        return f"the dispatcher {status}; it recovers by itself once that is repaired"
    return f"the dispatcher is {status}: start one with `ponder dispatcher`"


def _reason(reason: Reason, message: str, tokens_ahead: int) -> JsonObject:
    return {"reason": reason, "message": message, "tokens_ahead": tokens_ahead}
