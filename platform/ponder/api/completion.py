"""OpenAI's chat completion object of a settled job, with ponder's own fields beside OpenAI's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import Row

from ponder.api.services import unix
from ponder.domain.storable import JsonObject

_SERVICE_TIERS = ("auto", "default", "flex", "scale", "priority", "fast")


def completion(row: Row[Any]) -> JsonObject:
    """Returns the object of a completed job. `row` has its result, usage and cost."""
    return {
        "id": f"chatcmpl-{row.id}",
        "object": "chat.completion",
        "created": unix(row.settled_at),
        "model": row.model,
        "choices": [_choice(index, choice) for index, choice in enumerate(row.choices or [])],
        "usage": _usage(row),
        "service_tier": _service_tier((row.kept or {}).get("service_tier")),
        "system_fingerprint": row.fingerprint,
        "ponder": {
            "job_id": f"job_{row.id}",
            "verdict": row.verdict,
            "oracle": row.oracle,
            "strategy": row.strategy,
            "level": row.level,
            "answer": row.answer,
            "finish_reason": row.finish_reason,
            "cost": {"direct_nanodollars": int(row.direct_nanodollars)},
            "reward_tokens": row.reward_tokens or 0,
            "recomputed_tokens": row.recomputed_tokens or 0,
        },
    }


def _service_tier(kept: Any) -> str | None:
    return kept if kept in _SERVICE_TIERS else None


def _choice(index: int, choice: Mapping[str, Any]) -> JsonObject:
    reason = choice.get("finish_reason")
    return {
        "index": index,
        "message": {"role": "assistant", "content": choice.get("text") or "", "refusal": None},
        "logprobs": _logprobs(choice.get("logprobs")),
        # OpenAI has no budgets, so every sample that was cut short ended by its length.
        "finish_reason": "stop" if reason == "stop" else "length",
        "ponder": {"answer": choice.get("answer"), "score": choice.get("score"), "finish_reason": reason},
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


def _usage(row: Row[Any]) -> JsonObject:
    prompt, generated = row.prompt_tokens or 0, row.completion_tokens or 0
    return {
        "prompt_tokens": prompt,
        "completion_tokens": generated,
        "total_tokens": prompt + generated,
        "prompt_tokens_details": {"cached_tokens": row.cached_tokens or 0, "audio_tokens": 0},
        "completion_tokens_details": {
            "reasoning_tokens": row.thinking_tokens or 0,
            "audio_tokens": 0,
            "accepted_prediction_tokens": 0,
            "rejected_prediction_tokens": 0,
        },
    }
