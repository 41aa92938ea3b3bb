"""The route of /v1/reports/spending: what tenants and keys spent each day, from sums that ticks keep for budgets."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query
from sqlalchemy import text

from ponder.api.auth import Tenant, chosen_tenant
from ponder.api.services import Ponder
from ponder.domain.dimension import read_moment
from ponder.domain.storable import JsonObject
from ponder.errors import InvalidInput

router = APIRouter(prefix="/v1/reports", tags=["reports"])

_COLUMNS = {"day": "CAST(day AS text)", "tenant": "tenant_id", "key": "key_id"}
_KNOWN = ", ".join(_COLUMNS)
_SUMS = "direct_nanodollars, generated_tokens, num_completed, num_failed"

_SPENT = f"""
    SELECT {{columns}},
           CAST(sum(direct_nanodollars) AS bigint) AS direct_nanodollars,
           CAST(sum(generated_tokens) AS bigint) AS generated_tokens,
           CAST(sum(num_completed) AS bigint) AS completed, CAST(sum(num_failed) AS bigint) AS failed
    FROM (
        SELECT tenant_id, key_id, day, {_SUMS} FROM day_totals
        UNION ALL
        SELECT tenant_id, key_id, day, {_SUMS} FROM tallies JOIN batches ON batches.id = batch_id
    ) AS spent
    WHERE (CAST(:tenant_id AS text) IS NULL OR tenant_id = :tenant_id)
      AND (CAST(:since AS timestamptz) IS NULL OR day >= CAST(CAST(:since AS timestamptz) AT TIME ZONE 'UTC' AS date))
      AND (CAST(:until AS timestamptz) IS NULL OR day < CAST(:until AS timestamptz) AT TIME ZONE 'UTC')
    GROUP BY {{places}} ORDER BY {{places}}
"""
_Moment = Annotated[str | None, Query(max_length=40)]


@router.get("/spending")
def spending(
    ponder: Ponder,
    caller: Tenant,
    *,
    by: Annotated[str, Query(max_length=100, description=f"any of {_KNOWN}, separated by commas")] = "day",
    tenant: Annotated[str | None, Query(max_length=100, description="for operators: another tenant or `all`")] = None,
    since: _Moment = None,
    until: _Moment = None,
) -> JsonObject:
    """Reports direct nano-dollars, generated tokens and settled jobs by day (UTC), tenant and key.

    `since` and `until` choose whole days. However many jobs there are, this takes a moment.
    """
    names = list(dict.fromkeys(name.strip() for name in by.split(",") if name.strip()))
    if not names or not _COLUMNS.keys() >= set(names):
        raise InvalidInput(f"by: name any of {_KNOWN}, not {by!r}", param="by", code="invalid_value")
    values = {
        "tenant_id": chosen_tenant(tenant, caller),
        "since": read_moment(since, "since"),
        "until": read_moment(until, "until"),
    }
    columns = ", ".join(f"{_COLUMNS[name]} AS {name}" for name in names)
    places = ", ".join(str(place) for place in range(1, len(names) + 1))
    with ponder.engine.connect() as connection:
        rows = connection.execute(text(_SPENT.format(columns=columns, places=places)), values)
        return {"object": "list", "by": names, "data": [dict(row._mapping) for row in rows]}
