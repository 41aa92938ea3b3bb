"""The route of /v1/fleet/plan: the workers wanted now."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict
from typing import Annotated

from fastapi import APIRouter, Query

from ponder.api.auth import Operator
from ponder.api.services import Ponder
from ponder.domain.money import nanodollars
from ponder.domain.storable import JsonObject
from ponder.errors import InvalidInput
from ponder.fleet.proposing.proposal import Answer, Answers, answer
from ponder.fleet.proposing.scope import Inquiry, Place
from ponder.ledger.price_book import MARKETS

router = APIRouter(prefix="/v1/fleet", tags=["administration"])

_Number = Annotated[int | None, Query(ge=0, le=100_000)]


@router.get("/plan")
def get_plan(
    ponder: Ponder,
    _caller: Operator,
    *,
    model: Annotated[str | None, Query(max_length=500)] = None,
    min_workers: Annotated[_Number, Query(alias="min")] = None,
    max_workers: Annotated[_Number, Query(alias="max")] = None,
    max_dollars_per_hour: Annotated[str | None, Query(pattern=r"^[0-9]{1,9}(\.[0-9]{1,9})?$")] = None,
    machine: Annotated[list[str] | None, Query(max_length=100, description="MACHINE:MARKET; may be repeated")] = None,
) -> JsonObject:
    """Plans the workers of each model that has work or workers, or of one, and says what led to it.

    The plans are those that the active autoscaler acts on, except for the options that are given. The minimum holds for
    each model, the other bounds for all together.
    """
    most = None if max_dollars_per_hour is None else nanodollars(max_dollars_per_hour)
    machines = None if machine is None else frozenset(_places(machine))
    with ponder.engine.connect() as connection:
        found = answer(connection, Inquiry(model, min_workers, max_workers, most, machines))
    return {"object": "list", "data": [_object(one) for one in found.answers], "scope": _scope(found)}


def _places(machines: Iterable[str]) -> Iterable[Place]:
    for text in machines:
        machine, _, market = text.rpartition(":")
        if not machine or market not in MARKETS:
            raise InvalidInput(f"{text!r} is not MACHINE:on_demand or MACHINE:spot", param="machine")
        yield machine, market


def _object(answer: Answer) -> JsonObject:
    # Tuples become lists, as they will in the answer.
    seen: JsonObject = json.loads(json.dumps(asdict(answer.proposal.situation)))
    return {
        "object": "fleet.plan",
        "model": seen.pop("model"),
        "fingerprint": seen.pop("fingerprint"),
        "is_acted_on": answer.is_acted_on,
        "wanted": [
            {
                "machine": want.pool.machine,
                "market": want.pool.market,
                "num_workers": want.num_workers,
                "num_allowed": answer.allowed.get(want.pool, 0),
                "reason": want.reason,
            }
            for want in answer.proposal.wants
        ],
        "reasons": list(answer.reasons),
        "alternatives": json.loads(json.dumps([asdict(one) for one in answer.proposal.plan.alternatives])),
        "situation": seen,
    }


def _scope(found: Answers) -> JsonObject:
    scope = found.scope
    return {
        "is_autoscaled": found.is_active,
        "models": list(scope.models),
        "min": scope.bounds.min_workers,
        "max": scope.bounds.max_workers,
        "max_nanodollars_per_hour": scope.bounds.max_nanodollars_per_hour,
        "machines": [{"machine": machine, "market": market} for machine, market in sorted(scope.offered)],
    }
