"""Models that think before they answer, with the real engine and a small random model that has the marks."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tokenizers import AddedToken, Tokenizer

from ponder_worker.engine_process.loading import generation_defaults
from ponder_worker.models.checkpoint import tokenizer as tokenizer_module
from ponder_worker.models.model_error import InvalidFile
from ponder_worker.protocol import JobResult

from ...process import Process, job

CLOSING = "Enough: 5.</think>Answer: "


def add_marks(folder: Path) -> None:
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.add_tokens([AddedToken("<think>", special=False), AddedToken("</think>", special=False)])
    tokenizer.save(str(folder / "tokenizer.json"))


@pytest.fixture(scope="module")
def thinker(tiny_llama: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Its template opens the thought."""
    folder = shutil.copytree(tiny_llama, tmp_path_factory.mktemp("thinker") / "model")
    add_marks(folder)
    template = (folder / "chat_template.jinja").read_text()
    (folder / "chat_template.jinja").write_text(template.replace("assistant: ", "assistant: <think>"))
    (folder / "thinking.json").write_text(json.dumps({"closing": CLOSING, "answer_tokens": 8}))
    return folder


@pytest.fixture(scope="module")
def process(thinker: Path) -> Iterator[Process]:
    process = Process(model=str(thinker), num_threads=1, kv_bytes=1 << 22)
    yield process
    process.close()


def finished(process: Process, strategy: dict[str, Any], **changes: Any) -> JobResult:
    process.admit(job(1, strategy, **changes))
    result = process.finish(1)[0][1]
    assert result.error is None
    return result


def test_a_thought_ends_at_its_limit_and_the_answer_follows(process: Process) -> None:
    sampling = {"max_tokens": 60, "seed": 1}
    result = finished(process, {"name": "direct"}, n=4, sampling=sampling, budget={"thinking_tokens": 10})
    forced = [node for node in result.tree["nodes"] if node.get("forced")]
    assert len(forced) > 1
    assert all(node["forced"] == [[10, len(CLOSING) - len("</think>") + 1]] for node in forced)
    for choice in result.choices:
        assert choice.reasoning is not None
        if choice.reasoning.endswith("Enough: 5."):
            assert choice.text.startswith("Answer: ")
            assert choice.answer is None or choice.answer in choice.text, "what stands in the thought is no answer"
        else:
            assert choice.text or choice.finish_reason == "stop"
    num_thinking = result.usage.thinking_tokens
    assert len(forced) * (10 + len("Enough: 5.")) <= num_thinking <= 4 * (10 + len("Enough: 5."))
    assert num_thinking < result.usage.completion_tokens


def test_near_the_wall_it_is_told_to_answer(process: Process) -> None:
    sampling = {"max_tokens": None, "seed": 3}
    result = finished(process, {"name": "direct"}, sampling=sampling, budget={"tokens": 80})
    assert result.choices[0].reasoning is not None
    assert result.choices[0].reasoning + "</think>" + result.choices[0].text == result.tree["nodes"][1]["text"]
    assert CLOSING in result.tree["nodes"][1]["text"]
    assert 80 - 8 <= result.usage.completion_tokens <= 80


def test_budget_forcing_holds_a_thought_off_its_end(thinker: Path, tmp_path: Path) -> None:
    """A thought that a single letter closes: a random model says one often enough."""
    folder = shutil.copytree(thinker, tmp_path / "model")
    (folder / "thinking.json").write_text(json.dumps({"close": "z", "closing": "Enough.z"}))
    process = Process(model=str(folder), num_threads=1, kv_bytes=1 << 22)
    result = finished(
        process,
        {"name": "budget_forcing", "num_waits": 2, "wait": "Wait"},
        n=8,
        sampling={"max_tokens": 300, "seed": 3},
    )
    process.close()
    waits = [node["text"].count("Wait") for node in result.tree["nodes"][1:]]
    assert max(waits) > 0
    for node in result.tree["nodes"][1:]:
        thought, mark, _ = node["text"].partition("z")
        assert len(node["ids"]) <= 300
        held_off = thought.count("Wait")
        assert held_off == sum(1 for _, num in node.get("forced", []) if num == len("Wait"))
        assert held_off <= 2
        if mark and not thought.endswith("Enough."):
            assert held_off == 2


def test_a_model_without_marks_does_not_think(tiny_llama: Path) -> None:
    assert generation_defaults.read_thought(tiny_llama, tokenizer_module.Tokenizer(tiny_llama)) is None


def test_a_model_thinks_if_its_tokenizer_has_the_marks(tiny_llama: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(tiny_llama, tmp_path / "model")
    add_marks(folder)
    tokenizer = tokenizer_module.Tokenizer(folder)
    thought = generation_defaults.read_thought(folder, tokenizer)
    assert thought is not None
    assert tokenizer.decode(thought.open_ids) == "<think>"
    assert tokenizer.decode(thought.closing_ids).endswith("directly now.\n</think>\n\n")
    assert thought.answer_tokens == 512


@pytest.mark.parametrize(
    ("fields", "wrong"),
    [
        ({"opened": "<t>"}, "opened is not known; known: open, close, closing, answer_tokens"),
        ({"open": ""}, "open is ''; it must be a text that is not empty"),
        ({"close": 3}, "close is 3"),
        ({"answer_tokens": 0}, "answer_tokens is 0; it must be a whole number above 0"),
        ({"answer_tokens": "many"}, "answer_tokens is 'many'"),
        ({"open": "a", "close": "z", "closing": "Enough."}, "closing does not hold 'z', which ends the thought"),
        ({"close": "z", "closing": "z"}, "open is '<think>', 7 tokens of this model; it must be one"),
        ({"open": "a", "close": "zz", "closing": "zz"}, "close is 'zz', 2 tokens of this model; it must be one"),
    ],
)
def test_what_is_wrong_with_thinking_json_is_said(
    tiny_llama: Path, tmp_path: Path, fields: dict[str, Any], wrong: str
) -> None:
    (tmp_path / "thinking.json").write_text(json.dumps(fields))
    with pytest.raises(InvalidFile) as caught:
        generation_defaults.read_thought(tmp_path, tokenizer_module.Tokenizer(tiny_llama))
    assert "thinking.json: " in str(caught.value)
    assert wrong in str(caught.value)
