"""Reward models of every kind against a forward pass of transformers, step by step with kept pages."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from ponder_worker.engine import Engine, InvalidRequest
from ponder_worker.models.linear import Plain, linear
from ponder_worker.models.model_error import InvalidFile, UnsupportedModel
from ponder_worker.models.readout import Readout
from ponder_worker.models.reward import Mark, read

TOKENS = torch.randint(3, 300, (120,), generator=torch.Generator().manual_seed(5)).tolist()
MARKS = [20, 37, 48, 63, 64, 119]


def hidden_of(folder: Path) -> torch.Tensor:
    """`[120, hidden]` after the last norm, by transformers."""
    from transformers import AutoModel

    with torch.inference_mode():
        states: torch.Tensor = AutoModel.from_pretrained(folder, dtype=torch.float32)(
            torch.tensor([TOKENS])
        ).last_hidden_state
    return states[0]


def with_tensors(folder: Path, target: Path, tensors: dict[str, torch.Tensor], architecture: str) -> Path:
    """A copy that has these tensors too."""
    shutil.copytree(folder, target)
    file = target / "model.safetensors"
    save_file(load_file(file) | tensors, file, metadata={"format": "pt"})
    config = json.loads((target / "config.json").read_text())
    (target / "config.json").write_text(json.dumps(config | {"architectures": [architecture]}))
    return target


def check_readings(folder: Path, readout: Readout, expected: torch.Tensor) -> None:
    """All marks at once, and step by step, a step costing its own tokens and less than a page."""
    engine = Engine.load(folder, num_pages=32, max_step_tokens=32, max_sequences=4)
    readout.check(engine.model, "reward.json")
    whole = engine.read(TOKENS, MARKS, readout, salt=b"whole")
    while engine.has_work:
        engine.step()
        engine.check()
    assert whole.readings == pytest.approx(expected[MARKS].tolist(), abs=1e-5)
    assert whole.finish_reason == "scored"
    before = 0
    for mark in MARKS:
        computed = engine.counters.computed_tokens
        step = engine.read(TOKENS[: mark + 1], [mark], readout)
        while engine.has_work:
            engine.step()
        assert step.readings == pytest.approx([float(expected[mark])], abs=1e-5)
        if before:
            assert engine.counters.computed_tokens - computed <= mark - before
        before = mark


def test_a_two_class_head_of_two_layers_as_in_qwen_math_prm(llama_folder: Callable[..., Path], tmp_path: Path) -> None:
    random = torch.Generator().manual_seed(0)
    tensors = {
        "score.0.weight": torch.randn(64, 64, generator=random) * 0.2,
        "score.0.bias": torch.randn(64, generator=random),
        "score.2.weight": torch.randn(2, 64, generator=random) * 0.2,
        "score.2.bias": torch.randn(2, generator=random),
    }
    folder = with_tensors(llama_folder(family="Qwen2"), tmp_path / "prm", tensors, "Qwen2ForProcessRewardModel")
    inner = (hidden_of(llama_folder(family="Qwen2")) @ tensors["score.0.weight"].T + tensors["score.0.bias"]).relu()
    outputs = inner @ tensors["score.2.weight"].T + tensors["score.2.bias"]
    check_readings(folder, Readout("classes"), outputs.softmax(-1)[:, 1])


def test_a_two_class_head_of_a_token_classifier(llama_folder: Callable[..., Path]) -> None:
    from transformers import AutoModelForTokenClassification

    folder = llama_folder(family="Qwen2", head="ForTokenClassification", num_labels=2, tie_word_embeddings=False)
    peer = AutoModelForTokenClassification.from_pretrained(folder, dtype=torch.float32)
    with torch.inference_mode():
        expected = peer(torch.tensor([TOKENS])).logits[0].softmax(-1)[:, 1]
    check_readings(folder, Readout("classes"), expected)


def test_a_value_head_with_sigmoid_as_in_skywork(llama_folder: Callable[..., Path], tmp_path: Path) -> None:
    random = torch.Generator().manual_seed(0)
    weight, bias = torch.randn(1, 64, generator=random) * 0.2, torch.randn(1, generator=random)
    tensors = {"v_head.summary.weight": weight, "v_head.summary.bias": bias}
    folder = with_tensors(llama_folder(family="Qwen2"), tmp_path / "prm", tensors, "Qwen2ForPrmModel")
    expected = (hidden_of(llama_folder(family="Qwen2")) @ weight.T + bias)[:, 0].sigmoid()
    check_readings(folder, Readout("value"), expected)


@pytest.mark.parametrize("family", ["Llama", "Mistral"])
def test_two_tokens_logits_at_a_mark_as_in_math_shepherd(llama_folder: Callable[..., Path], family: str) -> None:
    from transformers import AutoModelForCausalLM

    folder = llama_folder(family=family)
    peer = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    with torch.inference_mode():
        expected = peer(torch.tensor([TOKENS])).logits[0, :, [31, 77]].softmax(-1)[:, 0]
    check_readings(folder, Readout("token", good=31, bad=77), expected)


def test_two_tokens_logits_are_there_where_the_matrix_was_laid_out_anew(llama_folder: Callable[..., Path]) -> None:
    folder = llama_folder(tie_word_embeddings=False)
    found = []
    for dtype in (torch.float32, torch.bfloat16):
        engine = Engine.load(folder, num_pages=32, max_step_tokens=32, max_sequences=4, dtype=dtype)
        reading = engine.read(TOKENS, MARKS, Readout("token", good=43, bad=45))
        while engine.has_work:
            engine.step()
        found.append(reading.readings)
    matrix = engine.model.weights.unembedding
    as_it_stands = isinstance(linear(torch.zeros(matrix.shape, dtype=matrix.dtype), None), Plain)
    assert matrix.is_meta != as_it_stands
    assert found[1] == pytest.approx(found[0], abs=0.05)


def test_a_head_that_the_weights_lack_and_marks_out_of_order_are_refused(tiny_llama: Path) -> None:
    engine = Engine.load(tiny_llama, num_pages=8, max_sequences=4)
    with pytest.raises(UnsupportedModel, match="these weights, which have no head; supported"):
        Readout("classes").check(engine.model, "reward.json")
    for marks in ([], [4, 3], [-1], [10], [2, 2]):
        with pytest.raises(InvalidRequest, match="marks are"):
            engine.read(TOKENS[:10], marks, Readout("token", 1, 2))


def test_a_marks_tokens_of_earlier_steps_stay_as_they_are(tiny_llama: Path) -> None:
    tokenizer = Engine.load(tiny_llama, num_pages=8, max_sequences=4).tokenizer
    mark = Mark("token", " ?", prefix="> ", suffix="!\n", good="+", bad="-")
    ids = mark.tokens(tokenizer, ["one", "two"])
    assert tokenizer.decode(ids) == "> one ?!\n> two ?"
    assert ids[: len(mark.tokens(tokenizer, ["one"]))] == mark.tokens(tokenizer, ["one"])
    assert mark.readout(tokenizer) == Readout("token", *(tokenizer.encode(text)[0] for text in "+-"))
    with pytest.raises(UnsupportedModel, match="'good' is 4 tokens"):
        Mark("token", " ?", good="good", bad="-").readout(tokenizer)


def test_a_reward_file_says_the_kind_and_what_is_wrong_with_it(tmp_path: Path) -> None:
    file = tmp_path / "reward.json"
    file.write_text(json.dumps({"kind": "token", "mark": "ки", "good": "+", "bad": "-"}))
    assert read(tmp_path) == Mark("token", "ки", good="+", bad="-")
    file.write_text(json.dumps({"kind": "classes", "mark": ""}))
    with pytest.raises(InvalidFile, match="mark is ''; it must be a non-empty string"):
        read(tmp_path)


def test_a_marks_score_is_the_logarithm_of_its_probability_and_finite() -> None:
    kind = Mark("classes", "<extra_0>")
    assert kind.score([0.25, 0.5]) == pytest.approx(-0.6931, abs=1e-4)
    assert kind.score([0.0]) < -60
    assert kind.score([]) == 0.0
