"""The routes of the budgets of tenants and keys. Operators set them, and a tenant reads its own and its keys'."""

from __future__ import annotations

from fastapi import APIRouter
from sqlalchemy import Connection, text

from ponder.api.auth import Caller, Operator, Tenant
from ponder.api.limit_object import limit_object
from ponder.api.services import Ponder, identifier, unix
from ponder.domain.budget import PERIODS, BudgetName, RenewingBudget
from ponder.domain.storable import JsonObject
from ponder.errors import NotFound
from ponder.jobs.budgets.change_budget import change_budget
from ponder.jobs.wake import wake
from ponder.ledger.spending import renewing

router = APIRouter(prefix="/v1", tags=["administration"])

_TENANT = text("SELECT id FROM tenants WHERE id = :id AND (:sees_all OR id = :tenant_id)")
_KEY = text("SELECT tenant_id FROM api_keys WHERE id = :id AND (:sees_all OR tenant_id = :tenant_id)")


@router.get("/tenants/{tenant_id}/budget")
def tenant_budget(tenant_id: str, ponder: Ponder, caller: Tenant) -> JsonObject:
    with ponder.engine.connect() as connection:
        return _object(connection, _tenant(connection, caller, tenant_id), None)


@router.patch("/tenants/{tenant_id}/budget")
def change_tenant_budget(tenant_id: str, body: RenewingBudget, ponder: Ponder, caller: Operator) -> JsonObject:
    """Changes what a tenant may spend. A limit that is null is lifted; one that is left out stays."""
    with ponder.engine.begin() as connection:
        owner = _tenant(connection, caller, tenant_id)
        change_budget(connection, owner, None, body)
        wake(connection)
        return _object(connection, owner, None)


@router.get("/keys/{key_id}/budget")
def key_budget(key_id: str, ponder: Ponder, caller: Tenant) -> JsonObject:
    with ponder.engine.connect() as connection:
        return _object(connection, _tenant_of_key(connection, caller, key_id), key_id)


@router.patch("/keys/{key_id}/budget")
def change_key_budget(key_id: str, body: RenewingBudget, ponder: Ponder, caller: Operator) -> JsonObject:
    """Changes what the batches of a key may spend. A limit that is null is lifted; one that is left out stays."""
    with ponder.engine.begin() as connection:
        owner = _tenant_of_key(connection, caller, key_id)
        change_budget(connection, owner, key_id, body)
        wake(connection)
        return _object(connection, owner, key_id)


def _tenant(connection: Connection, caller: Caller, tenant_id: str) -> str:
    values = {"id": identifier(tenant_id, "tenant"), **_scope(caller)}
    found = connection.execute(_TENANT, values).scalar()
    if found is None:
        raise NotFound(f"there is no tenant {tenant_id}", param="tenant_id")
    return str(found)


def _tenant_of_key(connection: Connection, caller: Caller, key_id: str) -> str:
    found = connection.execute(_KEY, {"id": identifier(key_id, "key"), **_scope(caller)}).scalar()
    if found is None:
        raise NotFound(f"there is no key {key_id}", param="key_id")
    return str(found)


def _scope(caller: Caller) -> dict[str, object]:
    return {"sees_all": caller.is_operator, "tenant_id": caller.tenant_id}


def _object(connection: Connection, tenant_id: str, key_id: str | None) -> JsonObject:
    limits = {one.limit.budget: one.limit for one in renewing(connection, [tenant_id]) if one.key_id == key_id}
    owner = "tenant" if key_id is None else "key"
    periods = {period: limits.get(BudgetName(f"{owner}_{period}")) for period in PERIODS}
    return {
        "object": "budget",
        "tenant": tenant_id,
        "key": key_id,
        **{
            period: limit and (limit_object(limit) | {"renews_at": unix(limit.renews_at)})
            for period, limit in periods.items()
        },
    }
