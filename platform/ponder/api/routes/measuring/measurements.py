"""The route of /v1/measurements: what each job took, without its texts."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Query
from sqlalchemy import Row, text

from ponder.api.auth import Tenant
from ponder.api.page import After, page
from ponder.api.services import Ponder, identifier, job_number, seconds
from ponder.domain.storable import JsonObject
from ponder.store.job_state import JOB_STATE
from ponder.store.retention import until_expired

router = APIRouter(prefix="/v1/measurements", tags=["reports"])

_MOST = 200
"""Jobs in a page. Postgres reads the whole tree of each for its candidates, which may be a megabyte."""
_TOKENS = ("prompt", "completion", "thinking", "reward", "judge", "cached", "recomputed")
_TIMES = (
    "submitted_at",
    "created_at",
    "started_at",
    "first_token_at",
    "first_visible_token_at",
    "ended_at",
    "settled_at",
)
_CANDIDATES = "coalesce(tree -> 'candidates', tree #> ARRAY['stages', tree ->> 'answered_by', 'candidates'])"
_FIND = text(f"""
    SELECT jobs.id, batch_id, custom_id, line, level, jobs.model, strategy, jobs.oracle, jobs.judged, verdict, checked,
           {JOB_STATE} AS current_state, {until_expired("answer")} AS answer, finish_reason,
           batches.created_at AS submitted_at, jobs.created_at, settled_at,
           first_token_at, first_visible_token_at, usage.ended_at,
           (SELECT min(started_at) FROM attempts WHERE job_id = jobs.id) AS started_at,
           {", ".join(f"{name}_tokens" for name in _TOKENS)},
           (SELECT CAST(coalesce(sum(nanodollars), 0) AS bigint) FROM ledger_entries WHERE job_id = jobs.id)
               AS direct_nanodollars,
           {until_expired(_CANDIDATES)} AS candidates
    FROM jobs JOIN batches ON batches.id = jobs.batch_id
    LEFT JOIN results ON results.job_id = jobs.id
    LEFT JOIN usage ON usage.job_id = jobs.id
    LEFT JOIN search_trees ON search_trees.job_id = jobs.id
    WHERE batch_id = ANY(CAST(:batch_ids AS text[])) AND jobs.tenant_id = :tenant_id AND jobs.id > :after
    ORDER BY jobs.id LIMIT :limit
""")


@router.get("")
def list_measurements(
    ponder: Ponder,
    caller: Tenant,
    *,
    batch_id: Annotated[list[str], Query(min_length=1, max_length=100)],
    limit: Annotated[int, Query(ge=1, le=_MOST)] = _MOST,
    after: After = None,
) -> JsonObject:
    """Lists the jobs of batches with their times (Unix seconds), tokens, cost, verdict and candidates.

    `candidates` are the answers that a search chose from, the best first, until the results of the batch expire; those
    of a cascade are of the stage that answered. A job is submitted with its batch, created when its line was read,
    started when a worker took it, ended when its search did, and settled after its answer was verified.
    """
    values = {
        "tenant_id": caller.tenant_id,
        "batch_ids": [identifier(one, "batch") for one in batch_id],
        "after": 0 if after is None else job_number(after, "after"),
        "limit": limit + 1,
    }
    with ponder.engine.connect() as connection:
        return page([_measurement(row) for row in connection.execute(_FIND, values)], limit)


def _measurement(row: Row[Any]) -> JsonObject:
    return {
        "id": f"job_{row.id}",
        "object": "measurement",
        "batch_id": row.batch_id,
        "custom_id": row.custom_id,
        "line": row.line,
        "level": row.level,
        "model": row.model,
        "strategy": row.strategy,
        "oracle": row.oracle,
        "state": row.current_state,
        "verdict": row.verdict,
        "judged": row.judged,
        "checked": row.checked,
        "answer": row.answer,
        "finish_reason": row.finish_reason,
        **{name: seconds(row._mapping[name]) for name in _TIMES},
        **{f"{name}_tokens": row._mapping[f"{name}_tokens"] or 0 for name in _TOKENS},
        "direct_nanodollars": row.direct_nanodollars,
        "candidates": [{"answer": one.get("answer"), "score": one.get("score")} for one in row.candidates or ()],
    }
