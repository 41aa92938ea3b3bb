"""Makes the lines of output and error files from the results, a page at a time."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from sqlalchemy import Engine, Row, TextClause, text

from ponder.api.completion import completion
from ponder.domain.storable import JsonObject
from ponder.store.job_state import JOB_STATE

_OUTPUT = text(
    """
    SELECT jobs.id, line, custom_id, model, fingerprint, strategy, level, oracle, verdict, settled_at,
           request -> 'kept' AS kept, answer, finish_reason, choices, prompt_tokens, completion_tokens,
           thinking_tokens, reward_tokens, cached_tokens, recomputed_tokens,
           (SELECT coalesce(sum(nanodollars), 0) FROM ledger_entries WHERE job_id = jobs.id) AS direct_nanodollars
    FROM jobs
    LEFT JOIN results ON results.job_id = jobs.id
    LEFT JOIN usage ON usage.job_id = jobs.id
    WHERE batch_id = :batch_id AND jobs.tenant_id = :tenant_id AND state = 'completed' AND line > :after
    ORDER BY line LIMIT :limit
    """
)
_ERRORS = text(
    f"""
    (SELECT jobs.id, line, custom_id, {JOB_STATE} AS state, error ->> 'code' AS code, NULL AS param,
            error ->> 'message' AS message
     FROM jobs JOIN batches ON batches.id = batch_id LEFT JOIN results ON results.job_id = jobs.id
     WHERE batch_id = :batch_id AND jobs.tenant_id = :tenant_id
       AND {JOB_STATE} IN ('failed', 'expired', 'cancelled') AND line > :after
     ORDER BY line LIMIT :limit)
    UNION ALL
    (SELECT NULL, line, custom_id, 'rejected', code, param, message
     FROM rejected_lines
     WHERE batch_id = :batch_id AND line > :after
       AND EXISTS (SELECT FROM batches WHERE id = :batch_id AND tenant_id = :tenant_id)
     ORDER BY line LIMIT :limit)
    ORDER BY line LIMIT :limit
    """
)
_PAGE = 100
_REASONS = {
    "expired": ("batch_expired", "the job could not be finished before the batch's completion window ended"),
    "cancelled": ("batch_cancelled", "the batch was cancelled before the job was finished"),
    "failed": ("job_failed", "the job failed"),
}


def output_lines(engine: Engine, tenant_id: str, batch_id: str) -> Iterator[bytes]:
    """Yields completed jobs by line: {id, custom_id, response: {status_code, request_id, body}, error}."""
    return _lines(engine, tenant_id, batch_id, _OUTPUT, _output)


def error_lines(engine: Engine, tenant_id: str, batch_id: str) -> Iterator[bytes]:
    """Yields rejected lines, with the answer OpenAI would give, and jobs that did not complete, by line."""
    return _lines(engine, tenant_id, batch_id, _ERRORS, _error)


def _lines(
    engine: Engine,
    tenant_id: str,
    batch_id: str,
    query: TextClause,
    render: Callable[[Row[Any]], Mapping[str, Any]],
) -> Iterator[bytes]:
    """Yields lines page by page, so that memory stays small and no transaction outlives a page."""
    after = 0
    while True:
        values = {"tenant_id": tenant_id, "batch_id": batch_id, "after": after, "limit": _PAGE}
        with engine.connect() as connection:
            rows = connection.execute(query, values).all()
        if not rows:
            return
        yield b"".join(json.dumps(render(row), separators=(",", ":")).encode() + b"\n" for row in rows)
        after = rows[-1].line


def _output(row: Row[Any]) -> JsonObject:
    return {
        "id": f"batch_req_{row.id}",
        "custom_id": row.custom_id,
        "response": {"status_code": 200, "request_id": f"job_{row.id}", "body": completion(row)},
        "error": None,
    }


def _error(row: Row[Any]) -> JsonObject:
    code, message = _REASONS.get(row.state, ("", ""))
    error = {"code": row.code or code, "message": row.message or message, "param": row.param, "line": row.line}
    if row.state != "rejected":
        return {"id": f"batch_req_{row.id}", "custom_id": row.custom_id, "response": None, "error": error}
    refusal = {"message": row.message, "type": "invalid_request_error", "param": row.param, "code": row.code}
    name = f"line_{row.line}"
    response = {"status_code": 400, "request_id": name, "body": {"error": refusal}}
    return {"id": f"batch_req_{name}", "custom_id": row.custom_id, "response": response, "error": error}
