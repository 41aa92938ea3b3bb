"""Makes the lines of output and error files from the results, a page at a time, with OpenAI's objects in them."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import accumulate
from types import SimpleNamespace
from typing import Any

from sqlalchemy import Connection, Engine, Row, TextClause, text

from ponder.domain.storable import JsonObject
from ponder.jobs.retention.check_kept import check_kept
from ponder.store.job_state import JOB_STATE

_COLUMNS = """
    jobs.id, line, custom_id, model, fingerprint, strategy, level, oracle, judged, verdict, checked,
    CAST(floor(extract(epoch FROM settled_at)) AS bigint) AS settled_at,
    request -> 'kept' AS kept, request -> 'prompt' IS NOT NULL AS is_text, answer, finish_reason,
    choices, prompt_tokens, completion_tokens, thinking_tokens, reward_tokens, judge_tokens, cached_tokens,
    recomputed_tokens,
    (SELECT coalesce(sum(nanodollars), 0) FROM ledger_entries WHERE job_id = jobs.id) AS direct_nanodollars"""
_OUTPUT = text(
    f"""
    SELECT {_COLUMNS}
    FROM jobs
    LEFT JOIN results ON results.job_id = jobs.id
    LEFT JOIN usage ON usage.job_id = jobs.id
    WHERE batch_id = :batch_id AND jobs.tenant_id = :tenant_id AND state = 'completed' AND line > :after
    ORDER BY line LIMIT :limit
    """
)
_STATE = f"""
    CASE WHEN {JOB_STATE} = 'expired' AND exhausted_at IS NOT NULL THEN 'exhausted' ELSE {JOB_STATE} END"""
"""SQL for the state of a job, a key of `_REASONS` unless it completed."""
_ERRORS = text(
    f"""
    (SELECT jobs.id, line, custom_id, {_STATE} AS state, error ->> 'code' AS code, NULL AS param,
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
# One document instead of rows, which the driver would decode value by value.
_SETTLED = text(
    f"""
    SELECT coalesce(json_agg(row_to_json(settled) ORDER BY place), '[]') FROM (
        SELECT {_COLUMNS}, {_STATE} AS state, error ->> 'code' AS code, NULL AS param,
               error ->> 'message' AS message, place
        FROM unnest(CAST(:job_ids AS bigint[])) WITH ORDINALITY AS chosen(id, place)
        JOIN jobs ON jobs.id = chosen.id AND jobs.tenant_id = :tenant_id JOIN batches ON batches.id = batch_id
        LEFT JOIN results ON results.job_id = jobs.id
        LEFT JOIN usage ON usage.job_id = jobs.id
    ) AS settled
    """
)
_REJECTED = text(
    """
    SELECT NULL AS id, line, custom_id, 'rejected' AS state, code, param, message
    FROM rejected_lines
    WHERE batch_id = :batch_id AND line > :after
      AND EXISTS (SELECT FROM batches WHERE id = :batch_id AND tenant_id = :tenant_id)
    ORDER BY line LIMIT :limit
    """
)
_SERVICE_TIERS = ("auto", "default", "flex", "scale", "priority", "fast")
_PAGE = 100
_Row = Row[Any] | SimpleNamespace
_REASONS = {
    "expired": ("batch_expired", "the job could not be finished before the batch's completion window ended"),
    "exhausted": ("budget_exhausted", "a budget was exhausted until the batch's completion window ended"),
    "cancelled": ("batch_cancelled", "the batch was cancelled before the job was finished"),
    "failed": ("job_failed", "the job failed"),
}


def output_lines(engine: Engine, tenant_id: str, batch_id: str) -> Iterator[bytes]:
    """Yields completed jobs by line: {id, custom_id, response: {status_code, request_id, body}, error}."""
    return _lines(engine, tenant_id, batch_id, _OUTPUT, _output)


def error_lines(engine: Engine, tenant_id: str, batch_id: str) -> Iterator[bytes]:
    """Yields rejected lines, with the answer OpenAI would give, and jobs that did not complete, by line."""
    return _lines(engine, tenant_id, batch_id, _ERRORS, _error)


def settled_lines(connection: Connection, tenant_id: str, job_ids: Sequence[int]) -> list[JsonObject]:
    """Returns the line of each settled job, in the order of the ids: that of the output file or of the error file."""
    values = {"tenant_id": tenant_id, "job_ids": job_ids}
    rows = (SimpleNamespace(**row) for row in connection.execute(_SETTLED, values).scalar_one())
    return [_output(row) if row.state == "completed" else _error(row) for row in rows]


def refused_lines(
    connection: Connection, tenant_id: str, batch_id: str, after: int, limit: int
) -> dict[int, JsonObject]:
    """Returns the error file's lines of refused lines, by line, in order."""
    values = {"tenant_id": tenant_id, "batch_id": batch_id, "after": after, "limit": limit}
    rows = connection.execute(_REJECTED, values)
    return {row.line: _error(row) for row in rows}


def encoded(lines: Iterable[Mapping[str, Any]]) -> bytes:
    return b"".join(json.dumps(line, separators=(",", ":")).encode() + b"\n" for line in lines)


def _lines(
    engine: Engine,
    tenant_id: str,
    batch_id: str,
    query: TextClause,
    render: Callable[[Row[Any]], Mapping[str, Any]],
) -> Iterator[bytes]:
    """Yields lines page by page, so that memory stays small and no transaction outlives a page. Raises Gone."""
    after = 0
    while True:
        values = {"tenant_id": tenant_id, "batch_id": batch_id, "after": after, "limit": _PAGE}
        with engine.connect() as connection:
            rows = connection.execute(query, values).all()
            check_kept(connection, tenant_id, batch_id)
        if not rows:
            return
        yield encoded(map(render, rows))
        after = rows[-1].line


def _output(row: _Row) -> JsonObject:
    return {
        "id": f"batch_req_{row.id}",
        "custom_id": row.custom_id,
        "response": {"status_code": 200, "request_id": f"job_{row.id}", "body": completion(row)},
        "error": None,
    }


def _error(row: _Row) -> JsonObject:
    code, message = _REASONS.get(row.state, ("", ""))
    error = {"code": row.code or code, "message": row.message or message, "param": row.param, "line": row.line}
    if row.state != "rejected":
        return {"id": f"batch_req_{row.id}", "custom_id": row.custom_id, "response": None, "error": error}
    refusal = {"message": row.message, "type": "invalid_request_error", "param": row.param, "code": row.code}
    name = f"line_{row.line}"
    response = {"status_code": 400, "request_id": name, "body": {"error": refusal}}
    return {"id": f"batch_req_{name}", "custom_id": row.custom_id, "response": response, "error": error}


def completion(row: _Row) -> JsonObject:
    """Returns OpenAI's object of a completed job, a chat completion or a text completion, with ponder's own fields
    beside OpenAI's.
    """
    choices = list(enumerate(row.choices or []))
    common = {
        "created": row.settled_at,
        "model": row.model,
        "usage": _usage(row),
        "system_fingerprint": row.fingerprint,
        "ponder": _ponder(row),
    }
    if row.is_text:
        answers = [_text_choice(index, choice) for index, choice in choices]
        return {"id": f"cmpl-{row.id}", "object": "text_completion", "choices": answers} | common
    answers = [_choice(index, choice) for index, choice in choices]
    tier = {"service_tier": _service_tier((row.kept or {}).get("service_tier"))}
    return {"id": f"chatcmpl-{row.id}", "object": "chat.completion", "choices": answers} | common | tier


def _ponder(row: _Row) -> JsonObject:
    return {
        "job_id": f"job_{row.id}",
        "verdict": row.verdict,
        "judged": row.judged,
        "checked": row.checked,
        "oracle": row.oracle,
        "strategy": row.strategy,
        "level": row.level,
        "answer": row.answer,
        "finish_reason": row.finish_reason,
        "cost": {"direct_nanodollars": int(row.direct_nanodollars)},
        "reward_tokens": row.reward_tokens or 0,
        "judge_tokens": row.judge_tokens or 0,
        "recomputed_tokens": row.recomputed_tokens or 0,
    }


def _service_tier(kept: Any) -> str | None:
    return kept if kept in _SERVICE_TIERS else None


def _choice(index: int, choice: Mapping[str, Any]) -> JsonObject:
    thought = choice.get("reasoning")
    # vLLM calls it `reasoning` now, and others still `reasoning_content`.
    thoughts = {} if thought is None else {"reasoning_content": thought, "reasoning": thought}
    message = {"role": "assistant", "content": choice.get("text") or "", "refusal": None}
    return {"index": index, "message": message | thoughts, "logprobs": _logprobs(choice.get("logprobs"))} | _end(choice)


def _text_choice(index: int, choice: Mapping[str, Any]) -> JsonObject:
    logprobs = _text_logprobs(_logprobs(choice.get("logprobs")))
    return {"index": index, "text": choice.get("text") or "", "logprobs": logprobs} | _end(choice)


def _end(choice: Mapping[str, Any]) -> JsonObject:
    reason = choice.get("finish_reason")
    return {
        # OpenAI has no budgets, so every sample that was cut short ended by its length.
        "finish_reason": "stop" if reason == "stop" else "length",
        "ponder": {"answer": choice.get("answer"), "score": choice.get("score"), "finish_reason": reason},
    }


def _text_logprobs(value: JsonObject | None) -> JsonObject | None:
    """Turns the form of a chat completion into that of a text completion, in which the chosen token is one of the
    likeliest.
    """
    if value is None:
        return None
    content = value["content"]
    offsets = accumulate((len(token["token"]) for token in content), initial=0)
    return {
        "tokens": [token["token"] for token in content],
        "token_logprobs": [token["logprob"] for token in content],
        "top_logprobs": [
            {entry["token"]: entry["logprob"] for entry in (token, *token["top_logprobs"])} for token in content
        ],
        "text_offset": [offset for offset, _ in zip(offsets, content, strict=False)],
    }


def _logprobs(value: Any) -> JsonObject | None:
    """Returns OpenAI's form of a list of {token, logprob}. A value already in that form stays as it is."""
    if isinstance(value, Mapping):
        return dict(value)
    if not isinstance(value, Sequence) or isinstance(value, str):
        return None
    return {"content": [_token(token) for token in value], "refusal": None}


def _token(value: Any) -> JsonObject:
    entry = dict(value) if isinstance(value, Mapping) else {"logprob": value}
    token = str(entry.get("token", ""))
    return {
        "token": token,
        "logprob": entry.get("logprob"),
        "bytes": entry.get("bytes") or list(token.encode("utf-8", "replace")),
        "top_logprobs": entry.get("top_logprobs") or [],
    }


def _usage(row: _Row) -> JsonObject:
    prompt, generated = row.prompt_tokens or 0, row.completion_tokens or 0
    return {
        "prompt_tokens": prompt,
        "completion_tokens": generated,
        "total_tokens": prompt + generated,
        "prompt_tokens_details": {"cached_tokens": row.cached_tokens or 0, "audio_tokens": 0},
        "completion_tokens_details": {
            "reasoning_tokens": row.thinking_tokens or 0,
            "judge_tokens": row.judge_tokens or 0,
            "audio_tokens": 0,
            "accepted_prediction_tokens": 0,
            "rejected_prediction_tokens": 0,
        },
    }
