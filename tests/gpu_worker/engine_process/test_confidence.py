"""Samples that are stopped for their low confidence, with a small random model."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest

from ponder_worker.engine_process.engine_core import EngineCore
from ponder_worker.engine_process.job import Job
from ponder_worker.engine_process.loading.engines import Engines
from ponder_worker.protocol import Document, JobResult

from ..searches import admitted, run

SPEC = {"name": "self_consistency", "n": 8, "early_stopping": None}
CONFIDENCE = {"keep": 0.5, "window": 4, "num_warmup": 3}
SAMPLING = {"temperature": 1.0, "max_tokens": 40, "seed": 3, "stop": []}


def _made(engines: Engines, **changes: Any) -> JobResult:
    request = {"strategy": SPEC | {"confidence": CONFIDENCE}, "sampling": SAMPLING} | changes
    (result,) = run(EngineCore(engines, lambda: None), [admitted(7, **request)])
    assert result.error is None
    return result


def _outcome(result: JobResult) -> Any:
    nodes = result.tree["nodes"]
    return [choice.text for choice in result.choices], [
        {name: node.get(name) for name in ("ordinal", "ids", "state", "stop")} for node in nodes
    ]


def _confidences(result: JobResult) -> Any:
    """Returns those of all nodes. A prefill does not round as the steps did that it repeats, on some processors."""
    return pytest.approx([node.get("confidence") or 0.0 for node in result.tree["nodes"]], rel=1e-4)


def test_confidence_is_made_of_the_probabilities_that_the_user_may_ask_for(engines: Engines) -> None:
    result = _made(engines, strategy={"name": "self_consistency", "n": 1, "confidence": {"window": 4}})
    asked = _made(engines, strategy={"name": "direct"}, sampling=SAMPLING | {"logprobs": True})
    assert result.choices[0].logprobs is None, "nobody asked for them"
    assert asked.choices[0].logprobs is not None
    logprobs = [entry["logprob"] for entry in asked.choices[0].logprobs["content"]]
    (node,) = result.tree["nodes"][1:]
    assert node["ids"] == asked.tree["nodes"][1]["ids"]
    lowest = min(sum(logprobs[place : place + 4]) / 4 for place in range(len(logprobs) - 3))
    if node["stop"] == "length":
        assert node["confidence"] == pytest.approx(math.exp(lowest))
    assert node["confidence"] <= math.exp(lowest) + 1e-9


def test_what_is_stopped_costs_less_and_says_why(engines: Engines) -> None:
    stopped, whole = _made(engines), _made(engines, strategy=SPEC)
    assert any(node["stop"] == "confidence" for node in stopped.tree["nodes"])
    assert stopped.usage.completion_tokens < whole.usage.completion_tokens
    assert stopped.usage.completion_tokens == sum(node["tokens"] for node in stopped.tree["nodes"])


@pytest.mark.parametrize("num_steps", [5, 30, 42, 48])
def test_handed_on_in_mid_thought_it_stops_at_the_same_token(engines: Engines, num_steps: int) -> None:
    saved: list[list[Document]] = []
    steps = 0

    def save(jobs: list[Job]) -> None:
        nonlocal steps
        steps += 1
        if steps == num_steps:
            saved.append([json.loads(json.dumps(jobs[0].delta()))])

    request: dict[str, Any] = {"strategy": SPEC | {"confidence": CONFIDENCE}, "sampling": SAMPLING}
    (whole,) = run(EngineCore(engines, lambda: None), [admitted(7, **request)], save)
    assert saved, "it ended before"
    (again,) = run(EngineCore(engines, lambda: None), [admitted(7, deltas=saved[0], **request)])
    assert _outcome(again) == _outcome(whole)
    assert [node.get("confidence") or 0.0 for node in again.tree["nodes"]] == _confidences(whole)
