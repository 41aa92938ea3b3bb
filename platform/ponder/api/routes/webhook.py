"""The routes of /v1/webhook: where the events of the caller's tenant go. Its secret is shown once, when it is made."""

from __future__ import annotations

import secrets

from fastapi import APIRouter
from sqlalchemy import Connection

from ponder.api.auth import Caller, Tenant
from ponder.api.services import Ponder, unix
from ponder.domain.batch.submission import StorableBody
from ponder.domain.batch.webhook_url import WebhookUrl
from ponder.domain.storable import JsonObject
from ponder.jobs.webhooks.subscription import find_subscription, make_secret, set_url

router = APIRouter(prefix="/v1/webhook", tags=["webhook"])

_SALT_BYTES = 32


class NewUrl(StorableBody):
    url: WebhookUrl | None


@router.get("")
def get_webhook(ponder: Ponder, caller: Tenant) -> JsonObject:
    with ponder.engine.connect() as connection:
        return _object(connection, caller)


@router.put("")
def set_webhook(body: NewUrl, ponder: Ponder, caller: Tenant) -> JsonObject:
    """Sets the URL, or with null removes it. The first time a secret is made, and shown."""
    with ponder.engine.begin() as connection:
        secret = set_url(connection, ponder.settings, caller.tenant_id, body.url, _salt())
        return _object(connection, caller) | ({} if secret is None else {"secret": secret})


@router.post("/secret")
def new_secret(ponder: Ponder, caller: Tenant) -> JsonObject:
    """Makes and shows a new secret. For a day, messages are signed with the one before as well."""
    with ponder.engine.begin() as connection:
        secret = make_secret(connection, ponder.settings, caller.tenant_id, _salt())
        return _object(connection, caller) | {"secret": secret}


def _salt() -> bytes:
    return secrets.token_bytes(_SALT_BYTES)


def _object(connection: Connection, caller: Caller) -> JsonObject:
    found = find_subscription(connection, caller.tenant_id)
    return {
        "object": "webhook",
        "url": found and found.url,
        "secret_made_at": unix(found.secret_made_at) if found else None,
        "num_waiting": found.num_waiting if found else 0,
        "last_delivered_at": unix(found.last_delivered_at) if found else None,
        "last_error": found and found.last_error,
        "last_error_at": unix(found.last_error_at) if found else None,
    }
