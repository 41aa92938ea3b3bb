"""Writes events into the outbox, in the transaction that makes them true."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from sqlalchemy import Connection, text

from ponder.domain.budget import Limit
from ponder.store.document import dumps

_TIMESTAMP = """to_char(clock_timestamp() AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"')"""

# The URL of a batch takes the place of the tenant's. Null: the tenant's at the time of delivery.
_ANNOUNCE = text(f"""
    INSERT INTO webhook_messages (tenant_id, url, body)
    SELECT batches.tenant_id, options ->> 'webhook', CAST(json_build_object(
               'type', CAST(:type AS text), 'timestamp', {_TIMESTAMP}, 'data', jsonb_build_object(
                   'id', batches.id, 'object', 'batch', 'status', state, 'metadata', metadata,
                   'output_file_id', output_file_id, 'error_file_id', error_file_id
               ) || coalesce(CAST(:more AS jsonb) -> batches.id, '{{}}')) AS text)
    FROM batches JOIN webhooks ON webhooks.tenant_id = batches.tenant_id
    WHERE batches.id = ANY(CAST(:batch_ids AS text[])) AND coalesce(options ->> 'webhook', webhooks.url) IS NOT NULL
    ORDER BY batches.id
""")

# The warning of a batch goes where its other events go. That of a key or tenant goes to the tenant and to all open
# batches that draw on the budget, once to each URL.
_WARN = text(f"""
    INSERT INTO webhook_messages (tenant_id, url, body)
    SELECT warning.tenant_id, recipient.url, CAST(json_build_object(
               'type', 'batch.budget_warning', 'timestamp', {_TIMESTAMP}, 'data', json_build_object(
                   'object', 'budget_warning', 'batch', batch_id, 'key', key_id, 'tenant', warning.tenant_id,
                   'budget', budget, 'limit', measure, 'percent', percent, 'share', share,
                   'renews_at', CAST(floor(extract(epoch FROM renews_at)) AS bigint))) AS text)
    FROM budget_warnings AS warning JOIN webhooks ON webhooks.tenant_id = warning.tenant_id
    CROSS JOIN LATERAL (
        SELECT NULL AS url WHERE warning.batch_id IS NULL
        UNION
        SELECT options ->> 'webhook' FROM batches
        WHERE batches.tenant_id = warning.tenant_id AND CASE
            WHEN warning.batch_id IS NOT NULL THEN batches.id = warning.batch_id
            ELSE state = 'in_progress' AND options ->> 'webhook' IS NOT NULL
                 AND (warning.key_id IS NULL OR batches.key_id = warning.key_id) END
    ) AS recipient
    WHERE warning.id = ANY(CAST(:ids AS bigint[])) AND coalesce(recipient.url, webhooks.url) IS NOT NULL
    ORDER BY warning.id
""")


def announce(connection: Connection, state: str, batch_ids: Collection[str]) -> None:
    """Announces that batches have come to a final state."""
    _announce(connection, f"batch.{state}", {batch_id: {} for batch_id in batch_ids})


def announce_exhausted(connection: Connection, exhausted: Mapping[str, Limit]) -> None:
    """Announces for each batch which budget keeps it from going on."""
    more: dict[str, dict[str, object]] = {
        batch_id: {
            "budget": limit.budget.value,
            "renews_at": None if limit.renews_at is None else int(limit.renews_at.timestamp()),
        }
        for batch_id, limit in exhausted.items()
    }
    _announce(connection, "batch.budget_exhausted", more)


def announce_warnings(connection: Connection, warning_ids: Collection[int]) -> None:
    if warning_ids:
        connection.execute(_WARN, {"ids": sorted(warning_ids)})


def _announce(connection: Connection, event: str, batches: Mapping[str, Mapping[str, object]]) -> None:
    if batches:
        connection.execute(_ANNOUNCE, {"type": event, "batch_ids": sorted(batches), "more": dumps(dict(batches))})
