"""The messages that are not delivered yet. What a dispatcher takes and does not deliver in time is due again."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection, text

from ponder.store.document import dumps

LEASE_S = 60.0
"""Longer than any attempt takes."""
GIVE_UP_AFTER_S = 86_400.0
_FIRST_DELAY_S = 5.0
_LONGEST_DELAY_S = 3_600.0
_MOST_CHARACTERS = 500


@dataclass(frozen=True, slots=True)
class Message:
    """A message and what its attempt needs. `url` None: its tenant has none any more."""

    id: int
    message_id: str
    tenant_id: str
    url: str | None
    body: str
    num_attempts: int
    """Including this one."""
    created_at: datetime
    salt: bytes
    previous_salt: bytes | None
    """The salt of the secret that was replaced less than a day ago."""
    key_check: bytes


# Tenants take turns: whoever has fewest under way is next. Two dispatchers may take at a time.
_TAKE = text("""
    WITH ranked AS MATERIALIZED (
        SELECT id, due_at, coalesce(CAST(CAST(:running AS json) ->> tenant_id AS bigint), 0)
                           + row_number() OVER (PARTITION BY tenant_id ORDER BY due_at, id) AS turn
        FROM webhook_messages WHERE due_at <= clock_timestamp()
    ), taken AS (
        SELECT id FROM webhook_messages
        WHERE id IN (SELECT id FROM ranked WHERE turn <= :most_of_one ORDER BY turn, due_at, id LIMIT :most)
          AND due_at <= clock_timestamp()
        ORDER BY id FOR NO KEY UPDATE SKIP LOCKED
    )
    UPDATE webhook_messages AS message
    SET due_at = clock_timestamp() + :lease_s * interval '1 second', num_attempts = num_attempts + 1
    FROM taken, webhooks WHERE message.id = taken.id AND webhooks.tenant_id = message.tenant_id
    RETURNING message.id, message_id, message.tenant_id, coalesce(message.url, webhooks.url) AS url, body, num_attempts,
              message.created_at, salt, key_check,
              CASE WHEN secret_made_at > clock_timestamp() - interval '1 day' THEN previous_salt END AS previous_salt
""")

_REMOVE = text("DELETE FROM webhook_messages WHERE id = :id")

_DELIVERED = text("UPDATE webhooks SET last_delivered_at = clock_timestamp() WHERE tenant_id = :tenant_id")

_FAILED = text("""
    UPDATE webhooks SET last_error = :error, last_error_at = clock_timestamp() WHERE tenant_id = :tenant_id
""")

_AGAIN = text("""
    UPDATE webhook_messages SET due_at = clock_timestamp() + :delay_s * interval '1 second'
    WHERE id = :id AND created_at + :give_up_after_s * interval '1 second' > clock_timestamp()
    RETURNING id
""")


def take(connection: Connection, *, most: int, most_of_one: int, running: Mapping[str, int]) -> list[Message]:
    """Takes up to `most` messages that are due. No tenant has more than `most_of_one` under way, with those `running`.

    A message that is neither removed nor put off within the lease is due again.
    """
    values = {"most": most, "most_of_one": most_of_one, "running": dumps(dict(running)), "lease_s": LEASE_S}
    return [Message(**row._mapping) for row in connection.execute(_TAKE, values)]


def remove(connection: Connection, message: Message, *, error: str | None = None) -> None:
    """Removes a message that was delivered, or with an `error` one that is given up."""
    connection.execute(_REMOVE, {"id": message.id})
    values = {"tenant_id": message.tenant_id, "error": (error or "")[:_MOST_CHARACTERS]}
    connection.execute(_DELIVERED if error is None else _FAILED, values)


def put_off(connection: Connection, message: Message, error: str, *, jitter: float) -> bool:
    """Makes a message due later, or removes it after a day. Returns whether it will be tried again.

    The delay doubles from five seconds to an hour, times 0.5 to 1.5 by `jitter` (0 to 1).
    """
    delay_s = min(_FIRST_DELAY_S * 2 ** min(message.num_attempts - 1, 20), _LONGEST_DELAY_S) * (0.5 + jitter)
    values = {"id": message.id, "delay_s": delay_s, "give_up_after_s": GIVE_UP_AFTER_S}
    goes_on = connection.execute(_AGAIN, values).first() is not None
    if goes_on:
        connection.execute(_FAILED, {"tenant_id": message.tenant_id, "error": error[:_MOST_CHARACTERS]})
    else:
        remove(connection, message, error=error)
    return goes_on
