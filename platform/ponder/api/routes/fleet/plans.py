"""The route of /v1/fleet/plan: the workers wanted now."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Annotated

from fastapi import APIRouter, Query

from ponder.api.auth import Operator
from ponder.api.services import Ponder
from ponder.domain.money import nanodollars
from ponder.domain.storable import JsonObject
from ponder.fleet.plan import plan
from ponder.fleet.problem import Bounds, Plan, Situation
from ponder.fleet.situation import situations

router = APIRouter(prefix="/v1/fleet", tags=["administration"])

_Number = Annotated[int, Query(ge=0, le=100_000)]


@router.get("/plan")
def get_plan(
    ponder: Ponder,
    _caller: Operator,
    *,
    model: Annotated[str | None, Query(max_length=500)] = None,
    min_workers: Annotated[_Number, Query(alias="min")] = 0,
    max_workers: Annotated[_Number | None, Query(alias="max")] = None,
    max_dollars_per_hour: Annotated[str | None, Query(pattern=r"^[0-9]{1,9}(\.[0-9]{1,9})?$")] = None,
) -> JsonObject:
    """Plans the workers of each model that has work or workers, or of one, and says what led to it.

    The bounds hold for each model by itself.
    """
    most = None if max_dollars_per_hour is None else nanodollars(max_dollars_per_hour)
    bounds = Bounds(min_workers, max_workers, most)
    with ponder.engine.connect() as connection:
        found = situations(connection, model)
    return {"object": "list", "data": [_object(situation, plan(situation, bounds)) for situation in found]}


def _object(situation: Situation, planned: Plan) -> JsonObject:
    # Tuples become lists, as they will in the answer.
    document: JsonObject = json.loads(json.dumps(asdict(planned)))
    seen = asdict(situation)
    return {
        "object": "fleet.plan",
        "model": seen.pop("model"),
        "fingerprint": seen.pop("fingerprint"),
        **document,
        "situation": json.loads(json.dumps(seen)),
    }
