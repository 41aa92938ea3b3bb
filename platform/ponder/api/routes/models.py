"""The routes of /v1/models: the models that workers have registered."""

from __future__ import annotations

from fastapi import APIRouter
from sqlalchemy import Connection, text

from ponder.api.auth import Tenant
from ponder.api.services import Ponder, unix
from ponder.domain.storable import JsonObject
from ponder.errors import NotFound
from ponder.jobs.served import served_models

router = APIRouter(prefix="/v1/models", tags=["models"])

_LIVE = text(
    """
    SELECT model, fingerprint, count(*) AS num FROM incarnations
    WHERE state IN ('loading', 'ready') AND lease_until > clock_timestamp() GROUP BY model, fingerprint
    """
)
_CREATED = text("SELECT name, fingerprint, created_at FROM models")


@router.get("")
def list_models(ponder: Ponder, _caller: Tenant) -> JsonObject:
    with ponder.engine.connect() as connection:
        return {"object": "list", "data": list(_objects(connection).values())}


@router.get("/{name:path}")
def get_model(name: str, ponder: Ponder, _caller: Tenant) -> JsonObject:
    with ponder.engine.connect() as connection:
        found = _objects(connection).get(name)
    if found is None:
        raise NotFound(f"no worker has served the model {name!a} yet", param="name")
    return found


def _objects(connection: Connection) -> dict[str, JsonObject]:
    live = {(row.model, row.fingerprint): row.num for row in connection.execute(_LIVE)}
    created = {(row.name, row.fingerprint): row.created_at for row in connection.execute(_CREATED)}
    return {
        name: {
            "id": name,
            "object": "model",
            "created": unix(created.get((name, model.fingerprint))) or 0,
            "owned_by": "ponder",
            "ponder": {
                "fingerprint": model.fingerprint,
                "context_length": model.context_length,
                "has_reward_model": model.has_reward_model,
                "live_workers": live.get((name, model.fingerprint), 0),
            },
        }
        for name, model in served_models(connection).items()
    }
