"""Something to claim."""

from __future__ import annotations

from sqlalchemy import Connection, text


def queue_shard_of_two(connection: Connection) -> int:
    """Makes a queued shard of two jobs, and returns its id."""
    for statement in (
        "INSERT INTO tenants (id, name) VALUES ('t', 't')",
        "INSERT INTO files (id, tenant_id, filename, purpose, kind, bytes) VALUES ('f', 't', 'f', 'batch', 'input', 0)",
        "INSERT INTO batches (id, tenant_id, input_file_id, endpoint, completion_window, state, expires_at)"
        " VALUES ('b', 't', 'f', '/v1/chat/completions', '1h', 'in_progress', now() + interval '1 hour')",
        "INSERT INTO jobs (tenant_id, batch_id, line, custom_id, model, fingerprint, request, strategy,"
        " estimated_tokens) SELECT 't', 'b', line, line::text, 'm', 'f', '{}', 'direct', 5"
        " FROM generate_series(1, 2) AS line",
        "INSERT INTO shards (tenant_id, batch_id, model, fingerprint, lane, job_ids, estimated_tokens)"
        " SELECT 't', 'b', 'm', 'f', 'batch', array_agg(id), 10 FROM jobs",
    ):
        connection.execute(text(statement))
    return int(connection.execute(text("SELECT id FROM shards")).scalar_one())
