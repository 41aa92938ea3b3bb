"""How many tokens a job may take: for the size of shards and for what waits before whom, never for the bill."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_BYTES_A_TOKEN = 3
_TOKENS_A_SAMPLE = 4_096
"""Where neither the request nor its budget says how long a sample may get."""


def estimate_tokens(request: Mapping[str, Any], context_length: int) -> int:
    """Prompt and generated tokens of a job's request document, at least 1: an upper bound where limits are given."""
    text = sum(len(str(message.get("content") or "").encode()) for message in request["messages"])
    prompt = min(text // _BYTES_A_TOKEN + 1, context_length)
    budget = request.get("budget") or {}
    limits = (request["sampling"].get("max_tokens"), budget.get("tokens_per_sample"), _TOKENS_A_SAMPLE)
    sample = min([limit for limit in limits if limit is not None] + [max(context_length - prompt, 1)])
    generated = sample * max(int(request["strategy"].get("n", 1)), int(request.get("n") or 1))
    return prompt + min(generated, budget.get("tokens") or generated)
