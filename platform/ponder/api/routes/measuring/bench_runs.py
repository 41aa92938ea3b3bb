"""The routes of /v1/bench/runs: what `ponder bench` measured."""

from __future__ import annotations

import json
import secrets
from typing import Annotated, Any

from fastapi import APIRouter, Depends
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from sqlalchemy import Row, text

from ponder.api.auth import Tenant
from ponder.api.page import After, Limit, check_cursor, page
from ponder.api.services import Ponder, identifier, unix
from ponder.api.submitted import json_body, raw_body
from ponder.domain.batch.refusal import explain
from ponder.domain.storable import JsonObject, StorableText, fault
from ponder.errors import Conflict, InvalidInput, NotFound

router = APIRouter(prefix="/v1/bench/runs", tags=["bench"])

_MOST = 1_000
"""Runs that a tenant may keep, so that nobody fills the database with documents."""
_COUNT = text("SELECT count(*) FROM bench_runs WHERE tenant_id = :tenant_id")
_DELETE = text("DELETE FROM bench_runs WHERE id = :id AND tenant_id = :tenant_id RETURNING id")
_INSERT = text("""
    INSERT INTO bench_runs (id, tenant_id, name, document) VALUES (:id, :tenant_id, :name, CAST(:document AS json))
    RETURNING id, name, created_at
""")
_FIND = text("SELECT id, name, created_at, document FROM bench_runs WHERE id = :id AND tenant_id = :tenant_id")
_LIST = text("""
    SELECT id, name, created_at FROM bench_runs
    WHERE tenant_id = :tenant_id
      AND (CAST(:after AS text) IS NULL
           OR (created_at, id) < (SELECT created_at, id FROM bench_runs WHERE id = :after AND tenant_id = :tenant_id))
    ORDER BY created_at DESC, id DESC LIMIT :limit
""")
_CURSOR = text("SELECT 1 FROM bench_runs WHERE id = :after AND tenant_id = :tenant_id")


class _NewRun(BaseModel):
    """The body of a request: the name of the suite, and the figures as the client made them."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: Annotated[StorableText, Field(min_length=1, max_length=100)]
    document: JsonObject


@router.post("", openapi_extra=json_body(_NewRun.model_json_schema()))
def keep_run(body: Annotated[bytes, Depends(raw_body)], ponder: Ponder, caller: Tenant) -> JsonObject:
    """Keeps a run of `ponder bench`. Its document is returned as it was sent."""
    with ponder.limits.submissions.one(caller.tenant_id, is_operator=caller.is_operator):
        run = _read(body)
    values = {
        "id": f"bench_{secrets.token_hex(8)}",
        "tenant_id": caller.tenant_id,
        "name": run.name,
        "document": json.dumps(run.document),
    }
    with ponder.engine.begin() as connection:
        if connection.execute(_COUNT, values).scalar_one() >= _MOST:
            raise Conflict(f"a tenant may keep {_MOST:,} bench runs: `ponder bench delete RUN` deletes one")
        return _object(connection.execute(_INSERT, values).one())


@router.get("")
def list_runs(ponder: Ponder, caller: Tenant, limit: Limit = 20, after: After = None) -> JsonObject:
    """Lists runs, the newest first, without their documents."""
    cursor = None if after is None else identifier(after, "bench run", "after")
    values = {"tenant_id": caller.tenant_id, "after": cursor, "limit": limit + 1}
    with ponder.engine.connect() as connection:
        check_cursor(connection, _CURSOR, values)
        return page([_object(row) for row in connection.execute(_LIST, values)], limit)


@router.get("/{run_id}")
def get_run(run_id: str, ponder: Ponder, caller: Tenant) -> JsonObject:
    values = {"id": identifier(run_id, "bench run", "run_id"), "tenant_id": caller.tenant_id}
    with ponder.engine.connect() as connection:
        row = connection.execute(_FIND, values).one_or_none()
    if row is None:
        raise NotFound(f"there is no bench run {run_id}", param="run_id")
    return _object(row) | {"document": row.document}


@router.delete("/{run_id}")
def delete_run(run_id: str, ponder: Ponder, caller: Tenant) -> JsonObject:
    """Deletes a run. Its batches stay."""
    values = {"id": identifier(run_id, "bench run", "run_id"), "tenant_id": caller.tenant_id}
    with ponder.engine.begin() as connection:
        if connection.execute(_DELETE, values).first() is None:
            raise NotFound(f"there is no bench run {run_id}", param="run_id")
    return {"id": run_id, "object": "bench_run", "deleted": True}


def _read(body: bytes) -> _NewRun:
    """Raises InvalidInput for what is no run, or cannot be stored."""
    try:
        document = json.loads(body)
    except (ValueError, RecursionError):
        raise InvalidInput("the body is not JSON", code="invalid_json") from None
    found = fault(document)
    if found is not None:
        raise InvalidInput(f"{found.path} {found.reason}", param=found.path, code=found.code)
    try:
        return _NewRun.model_validate(document)
    except ValidationError as error:
        raise explain(error) from None


def _object(row: Row[Any]) -> JsonObject:
    return {"id": row.id, "object": "bench_run", "name": row.name, "created_at": unix(row.created_at)}
