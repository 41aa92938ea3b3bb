"""The routes of /v1/reports."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query

from ponder.api.auth import Caller, Tenant
from ponder.api.services import Ponder, identifier
from ponder.domain.storable import JsonObject
from ponder.errors import Forbidden, InvalidInput
from ponder.ledger.cost_report import DIMENSIONS, CostRow, Dimension, cost_report, unassigned

router = APIRouter(prefix="/v1/reports", tags=["reports"])


@router.get("/cost")
def cost(
    ponder: Ponder,
    caller: Tenant,
    by: Annotated[str, Query(max_length=200, description="dimensions, separated by commas")] = "",
    batch_id: Annotated[list[str] | None, Query(max_length=1_000)] = None,
    tenant: Annotated[str | None, Query(max_length=100, description="for operators: another tenant or `all`")] = None,
) -> JsonObject:
    """Reports the cost of tasks by group, in nano-dollars.

    For an operator who names no batch, `unassigned_nanodollars` is the overhead that no job bears.
    """
    dimensions = _dimensions(by)
    batch_ids = None if batch_id is None else [identifier(one, "batch") for one in batch_id]
    tenant_id = _tenant(tenant, caller)
    with ponder.engine.connect() as connection:
        rows = cost_report(connection, tenant_id, dimensions, batch_ids)
        rest = unassigned(connection) if caller.is_operator and batch_ids is None else None
    return {"object": "list", "by": dimensions, "data": [_row(row) for row in rows], "unassigned_nanodollars": rest}


def _dimensions(by: str) -> list[Dimension]:
    names = [name.strip() for name in by.split(",") if name.strip()]
    for name in names:
        if name not in DIMENSIONS:
            raise InvalidInput(f"by must be one or more of {', '.join(DIMENSIONS)}", param="by", code="invalid_value")
    return [dimension for name in dict.fromkeys(names) for dimension in DIMENSIONS if dimension == name]


def _tenant(wanted: str | None, caller: Caller) -> str | None:
    if wanted is None or wanted == caller.tenant_id:
        return caller.tenant_id
    if not caller.is_operator:
        raise Forbidden("only an operator's key can see what others spend")
    return None if wanted == "all" else identifier(wanted, "tenant", "tenant")


def _row(row: CostRow) -> JsonObject:
    return {
        **{str(name): value for name, value in row.group.items()},
        "jobs": row.num_jobs,
        "settled": row.num_settled,
        "passed": row.num_passed,
        "accuracy": row.accuracy,
        "completion_tokens": row.completion_tokens,
        "tokens_per_job": row.tokens_per_job,
        "direct_nanodollars": row.direct_nanodollars,
        "loaded_nanodollars": row.loaded_nanodollars,
        "cost_per_job": row.nanodollars_per_job,
        "cost_per_successful_task": row.cost_per_successful_task,
        "oracle": row.num_oracle,
    }
