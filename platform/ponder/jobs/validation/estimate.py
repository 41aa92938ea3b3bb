"""Estimates how many tokens a job may take, for the size of shards and the length of queues, never for the bill."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_BYTES_A_TOKEN = 3
_TOKENS_A_SAMPLE = 4_096
"""The length of a sample that neither the request nor its budget limits."""
_STEPS_A_SAMPLE = 8


def estimate_tokens(request: Mapping[str, Any], context_length: int) -> int:
    """Returns the prompt and generated tokens of a job over all rounds it may need, at least 1."""
    text = sum(len(str(message.get("content") or "").encode()) for message in request["messages"])
    prompt = min(text // _BYTES_A_TOKEN + 1, context_length)
    budget = request.get("budget") or {}
    limits = (request["sampling"].get("max_tokens"), budget.get("tokens_per_sample"), _TOKENS_A_SAMPLE)
    sample = min([limit for limit in limits if limit is not None] + [max(context_length - prompt, 1)])
    generated = sample * max(_num_samples(request["strategy"]), int(request.get("n") or 1))
    generated *= int(request.get("max_rounds") or 1)
    return prompt + min(generated, budget.get("tokens") or generated)


def _num_samples(strategy: Mapping[str, Any]) -> int:
    """Returns how much a strategy generates, in whole samples: its maximum, except where that would mislead."""
    n = int(strategy.get("n", 1))
    match strategy["name"]:
        case "mcts":
            return -(-n * int(strategy["width"]) // _STEPS_A_SAMPLE)
        case "refine":  # all tries form one conversation, which has the limit of a sample
            return 1
        case "adaptive":  # most jobs end after their probes
            return (n + min(n, int(strategy["num_probes"]))) // 2
    return n
