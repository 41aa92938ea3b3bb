"""The routes of /v1/jobs."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter
from sqlalchemy import Connection, Row, text

from ponder.api.auth import Tenant
from ponder.api.job_object import job_object, job_row
from ponder.api.services import Ponder, unix
from ponder.domain.batch.stages import pins
from ponder.domain.storable import JsonObject
from ponder.domain.tree.partial_tree import steps_of
from ponder.store.job_state import JOB_STATE
from ponder.store.retention import EXPIRED_AT, until_expired

router = APIRouter(prefix="/v1/jobs", tags=["jobs"])

_FIND = text(
    f"""
    SELECT jobs.id, jobs.batch_id, strategy, request, {JOB_STATE} AS current_state, {EXPIRED_AT} AS results_expired_at,
           {until_expired("tree")} AS tree
    FROM jobs JOIN batches ON batches.id = jobs.batch_id
    LEFT JOIN search_trees ON search_trees.job_id = jobs.id
    WHERE jobs.id = :id AND jobs.tenant_id = :tenant_id
    """
)
_SAVED = text("SELECT incarnation_id, delta FROM tree_deltas WHERE job_id = :id ORDER BY id")
_ATTEMPTS = text("SELECT DISTINCT incarnation_id FROM attempts WHERE job_id = :id")


@router.get("/{job_id}")
def get_job(job_id: str, ponder: Ponder, caller: Tenant) -> JsonObject:
    """Returns a job with its attempts, usage, cost and search tree, and for a waiting one the reason."""
    with ponder.engine.connect() as connection:
        return job_object(connection, caller.tenant_id, job_id)


@router.get("/{job_id}/tree")
def get_job_tree(job_id: str, ponder: Ponder, caller: Tenant) -> JsonObject:
    """Returns a job's search tree, which while the job is pending is what its workers have saved of it so far."""
    with ponder.engine.connect() as connection:
        return _job_tree(connection, caller.tenant_id, job_id)


def _job_tree(connection: Connection, tenant_id: str, job_id: str) -> JsonObject:
    """Returns the search tree of a job as far as it is saved, with who made which part of it. Raises NotFound."""
    row = job_row(connection, _FIND, tenant_id, job_id)
    is_growing = row.current_state == "pending"
    return {
        "object": "search_tree",
        "job_id": f"job_{row.id}",
        "strategy": row.strategy,
        "growing": is_growing,
        "pruned_at": unix(row.results_expired_at),
        "tree": _growing(connection, row) if is_growing else _made_by_one(connection, row),
    }


def _growing(connection: Connection, row: Row[Any]) -> JsonObject | None:
    steps = steps_of((one.incarnation_id, one.delta) for one in connection.execute(_SAVED, {"id": row.id}))
    planned = pins(row.request)
    if not steps or not planned:
        return steps[0].document() if steps else None
    return {
        "stages": [
            {"step": number, "stage": planned[number].stage, "task": planned[number].task}
            | {"model": planned[number].model, "fingerprint": planned[number].fingerprint}
            | tree.document()
            for number, tree in sorted(steps.items())
        ],
        "answered_by": None,
    }


def _made_by_one(connection: Connection, row: Row[Any]) -> JsonObject | None:
    """Returns the stored tree. It names its makers if there were several."""
    tree: JsonObject | None = row.tree
    makers = connection.execute(_ATTEMPTS, {"id": row.id}).scalars().all()
    if tree is None or len(makers) != 1:
        return tree
    alone = {"made_by": [{"incarnation_id": makers[0], "first_node": 1}]}
    if "stages" in tree:
        return tree | {"stages": [stage | alone for stage in tree["stages"]]}
    return tree | alone
