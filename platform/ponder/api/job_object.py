"""The API's object of a job."""

from __future__ import annotations

import re
from typing import Any

from sqlalchemy import Connection, Row, TextClause, text

from ponder.api.services import job_number, unix
from ponder.api.waiting import why_job_waits
from ponder.domain.batch.stages import pins
from ponder.domain.storable import JsonObject
from ponder.errors import NotFound
from ponder.store.job_state import JOB_STATE
from ponder.store.retention import ERROR_LEFT, EXPIRED_AT, REQUEST_LEFT, until_expired
from ponder.trace import job_in, trace_hex, trace_of

COMPLETION_TOKENS = """
    coalesce(completion_tokens, (SELECT CAST(sum(num_tokens) AS bigint) FROM tree_deltas WHERE job_id = jobs.id))
        AS completion_tokens"""
"""SQL for the tokens of a settled job, from its usage, or of an open one, from its tree so far."""
OUTCOME = f"""
    {until_expired("answer")} AS answer, finish_reason, {until_expired("error", ERROR_LEFT)} AS error"""
"""SQL for how a job ended. Texts are left out once the results of its batch have expired."""
IS_RUNNING = "EXISTS (SELECT FROM attempts WHERE job_id = jobs.id AND attempts.ended_at IS NULL) AS is_running"
_FIND = text(
    f"""
    SELECT jobs.*, {JOB_STATE} AS current_state, {IS_RUNNING}, batches.lane, traceparent,
           {EXPIRED_AT} AS results_expired_at, {OUTCOME},
           {until_expired("request", REQUEST_LEFT)} AS request_left, {until_expired("tree")} AS tree,
           prompt_tokens, thinking_tokens, {COMPLETION_TOKENS}, reward_tokens, judge_tokens, cached_tokens,
           recomputed_tokens
    FROM jobs JOIN batches ON batches.id = jobs.batch_id
    LEFT JOIN results ON results.job_id = jobs.id
    LEFT JOIN usage ON usage.job_id = jobs.id
    LEFT JOIN search_trees ON search_trees.job_id = jobs.id
    WHERE jobs.id = :id AND jobs.tenant_id = :tenant_id
    """
)
_ATTEMPTS = text(
    """
    SELECT incarnation_id, worker, machine, market, attempts.started_at, attempts.ended_at, outcome,
           CASE WHEN outcome IN ('preempted', 'lost') AND attempts.ended_at = incarnations.ended_at THEN end_reason END
               AS reason
    FROM attempts JOIN incarnations ON incarnations.id = attempts.incarnation_id
    WHERE job_id = :id ORDER BY attempts.id
    """
)
_COST = text("SELECT kind, sum(nanodollars) AS num FROM ledger_entries WHERE job_id = :id GROUP BY kind ORDER BY kind")
_RESULTS = text(
    """
    SELECT CAST(coalesce(delta ->> 'step', delta ->> 'stage') AS int) AS step, CAST(delta ->> 'next' AS int) AS next,
           delta #> '{result,tree,decisions}' AS decisions
    FROM tree_deltas WHERE job_id = :id AND delta -> 'result' IS NOT NULL ORDER BY id
    """
)
_TRACE_ID = re.compile("[0-9a-f]{32}")
_TOO_LARGE = 1 << 63
_TOKENS = ("prompt", "completion", "thinking", "reward", "judge", "cached", "recomputed")


def job_summary(row: Row[Any], direct_nanodollars: int) -> JsonObject:
    return {
        "id": f"job_{row.id}",
        "object": "job",
        "batch_id": row.batch_id,
        "custom_id": row.custom_id,
        "line": row.line,
        "model": row.model,
        "fingerprint": row.fingerprint,
        "state": row.current_state,
        "is_running": row.is_running and row.current_state == "pending",
        "verdict": row.verdict,
        "judged": row.judged,
        "checked": row.checked,
        "oracle": row.oracle,
        "strategy": row.strategy,
        "level": row.level,
        "answer": row.answer,
        "finish_reason": row.finish_reason,
        "error": row.error,
        "completion_tokens": row.completion_tokens or 0,
        "direct_nanodollars": direct_nanodollars,
        "created_at": unix(row.created_at),
        "settled_at": unix(row.settled_at),
        "trace_id": trace_hex(trace_of(row.batch_id, row.id)) if row.traceparent else None,
    }


def job_row(connection: Connection, query: TextClause, tenant_id: str, job_id: str) -> Row[Any]:
    """Returns the row of a job that a query finds by `id` and `tenant_id`, with its `batch_id`. Raises NotFound.

    job_id: the job's id, or that of its trace.
    """
    trace_id = int(job_id, 16) if _TRACE_ID.fullmatch(job_id) else None
    number = job_number(job_id) if trace_id is None else job_in(trace_id)
    row = connection.execute(query, {"id": number, "tenant_id": tenant_id}).first() if number < _TOO_LARGE else None
    if row is None or (trace_id is not None and trace_of(row.batch_id, number) != trace_id):
        raise NotFound(f"there is no job {job_id}", param="job_id")
    return row


def job_object(connection: Connection, tenant_id: str, job_id: str) -> JsonObject:
    """Returns a job with its attempts, usage, cost and search tree, and why it waits if it does. Raises NotFound."""
    row = job_row(connection, _FIND, tenant_id, job_id)
    values = {"id": row.id, "tenant_id": tenant_id}
    by_kind = {cost.kind: int(cost.num) for cost in connection.execute(_COST, values)}
    is_waiting = row.current_state == "pending"
    direct_nanodollars = sum(by_kind.values())
    return job_summary(row, direct_nanodollars) | {
        "request": row.request_left,
        "estimated_tokens": row.estimated_tokens,
        "usage": {f"{name}_tokens": row._mapping[f"{name}_tokens"] or 0 for name in _TOKENS},
        "cost": {"direct_nanodollars": direct_nanodollars, "by_kind": by_kind},
        "attempts": [_attempt(attempt) for attempt in connection.execute(_ATTEMPTS, values)],
        "tree": row.tree,
        "stages": _stages(connection, row),
        "pruned_at": unix(row.results_expired_at),
        "waiting": why_job_waits(connection, row, row.lane) if is_waiting else None,
    }


def _stages(connection: Connection, row: Row[Any]) -> list[JsonObject] | None:
    """Returns the steps of a job in turn, with the model of each, and what was decided there; None for a job that has a
    single one.
    """
    steps = pins(row.request_left or {})
    if not steps:
        return None
    tree = row.tree or {}
    # Earlier workers named no steps: all of theirs were stages, one after the other.
    made = {stage.get("step", place): stage for place, stage in enumerate(tree.get("stages", ()))}
    ended = {number: stage.get("decisions") or {} for number, stage in made.items()}
    answered_by = tree.get("answered_by")
    answering = None if answered_by is None else list(made)[answered_by]
    turn = None
    if row.current_state == "pending":
        rows = list(connection.execute(_RESULTS, {"id": row.id}))
        ended = {one.step: one.decisions or {} for one in rows}
        turn = max((one.step + 1 if one.next is None else one.next for one in rows), default=0)
    return [
        {
            "stage": pin.stage,
            "task": pin.task,
            "model": pin.model,
            "fingerprint": pin.fingerprint,
            "state": "ended" if number in ended else _state_of(number, turn),
            "has_answered": number == answering,
            "decisions": ended.get(number, {}),
        }
        for number, pin in enumerate(steps)
    ]


def _state_of(number: int, turn: int | None) -> str:
    """Returns the state of a step that has not ended. turn: the step that the job is at; None if the job is over."""
    if turn is None or number < turn:
        return "not_needed"
    return "open" if number == turn else "ahead"


def _attempt(row: Row[Any]) -> JsonObject:
    return {
        "incarnation_id": row.incarnation_id,
        "worker": row.worker,
        "machine": row.machine,
        "market": row.market,
        "started_at": unix(row.started_at),
        "ended_at": unix(row.ended_at),
        "outcome": row.outcome,
        "reason": row.reason,
    }
