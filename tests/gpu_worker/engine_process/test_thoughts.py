"""Thoughts that are returned apart, and efforts that limit them, with a small random model between `<` and `>`."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from ponder_worker.engine_process.engine_core import EngineCore
from ponder_worker.engine_process.loading.engine_options import EngineOptions
from ponder_worker.engine_process.loading.engines import Engines, load
from ponder_worker.protocol import Choice, JobResult

from ..searches import admitted, run

TEMPLATE = (
    "{% for message in messages %}{{ message.role }}: {{ message.content }}\n{% endfor %}assistant: "
    "{% if enable_thinking is defined and not enable_thinking %}<>{% else %}<{% endif %}"
)
CLOSING = "so>"


@pytest.fixture(scope="module")
def thinking(engine_options: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Engines:
    folder = shutil.copytree(engine_options["model"], tmp_path_factory.mktemp("thinking") / "model")
    (folder / "chat_template.jinja").write_text(TEMPLATE)
    marks = {"open": "<", "close": ">", "closing": CLOSING, "answer_tokens": 4}
    (Path(folder) / "thinking.json").write_text(json.dumps(marks))
    return load(EngineOptions(device="cpu", model=str(folder), num_threads=1, kv_bytes=1 << 22))


def made(engines: Engines, **changes: Any) -> tuple[JobResult, Choice]:
    sampling = {"temperature": 1.0, "max_tokens": 40, "seed": 1, "stop": []} | changes.pop("sampling", {})
    request = {"strategy": {"name": "direct"}, "sampling": sampling} | changes
    (result,) = run(EngineCore(engines, lambda: None), [admitted(7, **request)])
    assert result.error is None
    return result, result.choices[0]


def spelled(engines: Engines, result: JobResult) -> str:
    return engines.generator.tokenizer.decode(result.tree["nodes"][1]["ids"])


def no_mark(engines: Engines) -> dict[str, float]:
    """Keeps the model from closing its thought itself."""
    return {str(engines.generator.tokenizer.encode(">")[0]): -100.0}


def test_a_thought_is_returned_apart_and_the_text_is_without_it(thinking: Engines) -> None:
    result, choice = made(thinking, budget={"thinking_tokens": 10}, sampling={"logit_bias": no_mark(thinking)})
    whole = spelled(thinking, result)
    inside, _, after = whole.partition(">")
    assert inside.endswith("so")
    assert (choice.reasoning, choice.text) == (inside.strip(), after.lstrip())
    assert result.usage.thinking_tokens == 10 + len("so")


def test_a_thought_that_was_cut_off_leaves_no_text(thinking: Engines) -> None:
    result, choice = made(thinking, sampling={"max_tokens": 2, "logit_bias": no_mark(thinking)})
    assert (choice.reasoning, choice.text) == (spelled(thinking, result).strip(), "")
    assert choice.finish_reason == "length"


def test_a_stop_string_is_in_neither_part(thinking: Engines) -> None:
    result, choice = made(thinking, budget={"thinking_tokens": 10}, sampling={"logit_bias": no_mark(thinking)})
    inside, _, after = spelled(thinking, result).partition(">")
    stop = after[5:7]
    _, stopped = made(
        thinking, budget={"thinking_tokens": 10}, sampling={"logit_bias": no_mark(thinking), "stop": [stop]}
    )
    if stop not in inside:
        assert (stopped.reasoning, stopped.text) == (choice.reasoning, after.partition(stop)[0].lstrip())
    stop = inside[3:5]
    _, cut = made(thinking, sampling={"logit_bias": no_mark(thinking), "stop": [stop]})
    assert (cut.reasoning, cut.text) == (inside.partition(stop)[0].strip(), "")


def test_a_template_can_be_told_that_the_model_shall_not_think(thinking: Engines) -> None:
    template = {"kwargs": {"enable_thinking": False}}
    result, choice = made(thinking, template=template, sampling={"logit_bias": no_mark(thinking)})
    assert choice.reasoning is None
    assert choice.text == spelled(thinking, result)


def test_a_completion_keeps_its_thought_in_the_text(thinking: Engines) -> None:
    result, choice = made(
        thinking, prompt="x: <", budget={"thinking_tokens": 10}, sampling={"logit_bias": no_mark(thinking)}
    )
    assert choice.reasoning is None
    assert choice.text == spelled(thinking, result)
    assert CLOSING in choice.text


def test_an_effort_limits_the_thought_of_a_model_that_thinks_and_the_job_of_another(
    thinking: Engines, engines: Engines
) -> None:
    effort = {"tokens": 9, "thinking_tokens": 9}
    sampling = {"logit_bias": no_mark(thinking) | {"2": -100.0}, "max_tokens": None}
    thought, _ = made(thinking, effort=effort, budget={"tokens": 60, "thinking_tokens": 30}, sampling=sampling)
    assert thought.usage.thinking_tokens == 9 + len("so")
    assert thought.usage.completion_tokens > 30
    plain, _ = made(engines, effort=effort, budget={"tokens": 60}, sampling=sampling)
    assert plain.usage.completion_tokens == 9
