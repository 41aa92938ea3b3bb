"""The webhook of a tenant: where its events go, and the salt of the secret that signs them."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection, text

from ponder.domain.batch.webhook_url import refusal
from ponder.errors import Conflict, InvalidInput
from ponder.jobs.webhooks.signing import SecretMaker
from ponder.settings import Settings

_FIND = text("""
    SELECT url, secret_made_at, last_delivered_at, last_error, last_error_at,
           (SELECT count(*) FROM webhook_messages WHERE tenant_id = webhooks.tenant_id) AS num_waiting
    FROM webhooks WHERE tenant_id = :tenant_id
""")

_BEGIN = text("""
    INSERT INTO webhooks (tenant_id, salt, key_check) VALUES (:tenant_id, :salt, :key_check)
    ON CONFLICT (tenant_id) DO NOTHING RETURNING tenant_id
""")

_SET_URL = text("UPDATE webhooks SET url = CAST(:url AS text) WHERE tenant_id = :tenant_id")

# A secret that was made with another key cannot be made again.
_ROTATE = text("""
    UPDATE webhooks SET previous_salt = CASE WHEN key_check = :key_check THEN salt END, salt = :salt,
                        key_check = :key_check, secret_made_at = clock_timestamp()
    WHERE tenant_id = :tenant_id
""")


@dataclass(frozen=True, slots=True)
class Subscription:
    """A tenant's webhook, without its secret. `url` None: only batches that name a URL of their own have one."""

    url: str | None
    secret_made_at: datetime
    last_delivered_at: datetime | None
    last_error: str | None
    last_error_at: datetime | None
    num_waiting: int
    """Messages that are not delivered yet."""


def find_subscription(connection: Connection, tenant_id: str) -> Subscription | None:
    row = connection.execute(_FIND, {"tenant_id": tenant_id}).one_or_none()
    return None if row is None else Subscription(**row._mapping)


def set_url(connection: Connection, settings: Settings, tenant_id: str, url: str | None, salt: bytes) -> str | None:
    """Sets where a tenant's events go, or nowhere. Returns its new secret if it had none, made with `salt`.

    Raises InvalidInput for a URL that no webhook goes to, and Conflict if the operator offers no webhooks.
    """
    maker = _maker(settings)
    _check(url, settings, "url")
    values = {"tenant_id": tenant_id, "url": url, "salt": salt, "key_check": maker.check}
    is_new = connection.execute(_BEGIN, values).first() is not None
    connection.execute(_SET_URL, values)
    return maker.secret(tenant_id, salt) if is_new else None


def make_secret(connection: Connection, settings: Settings, tenant_id: str, salt: bytes) -> str:
    """Gives a tenant a new secret. For a day, messages are also signed with the one before."""
    maker = _maker(settings)
    values = {"tenant_id": tenant_id, "salt": salt, "key_check": maker.check}
    if connection.execute(_BEGIN, values).first() is None:
        connection.execute(_ROTATE, values)
    return maker.secret(tenant_id, salt)


def check_webhook(connection: Connection, settings: Settings, tenant_id: str, url: str | None) -> None:
    """Checks the URL of a batch. Raises InvalidInput, also if the tenant has no secret to sign with."""
    if url is None:
        return
    _maker(settings)
    _check(url, settings, "ponder.webhook")
    if find_subscription(connection, tenant_id) is None:
        raise InvalidInput(
            "ponder.webhook: your tenant has no secret to sign with: `ponder tenant webhook --new-secret` makes one",
            param="ponder.webhook",
            code="no_webhook_secret",
        )


def _check(url: str | None, settings: Settings, param: str) -> None:
    refused = None if url is None else refusal(url, allows_private=settings.webhook_private)
    if refused is not None:
        raise InvalidInput(f"{param}: {refused}", param=param, code="invalid_webhook")


def _maker(settings: Settings) -> SecretMaker:
    maker = SecretMaker.of(settings)
    if maker is None:
        raise Conflict("there are no webhooks here: the operator must set PONDER_WEBHOOK_KEY")
    return maker
