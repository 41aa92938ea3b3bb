"""A training run of seconds: the files that it writes, and its repetition from a seed."""

import json
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner
from safetensors.torch import load_file
from transformers import LlamaForCausalLM

from ponder_worker.demo.problems import is_held_out
from ponder_worker.demo.training.bpe import train_tokenizer
from ponder_worker.demo.training.corpus import SYSTEM_LINES, Corpus, tokenizer_corpus
from ponder_worker.demo.training.llama import deepened, load_model
from ponder_worker.demo.training.train import orthogonalised, train


def run(out: Path, *options: str) -> Path:
    result = CliRunner().invoke(train, ["--out", str(out), "--tokens", "3000", *options], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return out


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return run(tmp_path_factory.mktemp("trained"))


def test_the_models_are_written_as_folders_that_transformers_reads(trained: Path) -> None:
    for name in ("generator", "reward", "large"):
        model = LlamaForCausalLM.from_pretrained(trained / name)
        stored = load_file(trained / name / "model.safetensors")
        assert stored.keys() == model.state_dict().keys() - {"lm_head.weight"}
        assert model.config.eos_token_id == model.generation_config.eos_token_id


def test_transformers_computes_what_was_trained(trained: Path) -> None:
    ids = torch.arange(2, 60)[None]
    theirs = LlamaForCausalLM.from_pretrained(trained / "generator", dtype=torch.float32)
    ours = load_model(trained / "generator")
    with torch.inference_mode():
        difference = theirs(ids).logits - ours.logits(ours(ids))
    assert difference.abs().max() < 0.05, "more than bf16 arithmetic explains"


def test_the_reward_model_says_how_it_scores(trained: Path) -> None:
    kind = json.loads((trained / "reward" / "reward.json").read_text())
    assert kind == {"kind": "likelihood", "aggregate": "sum"}
    assert not (trained / "generator" / "reward.json").exists()


def test_a_deeper_model_begins_as_the_one_that_it_was_made_of(trained: Path) -> None:
    model = load_model(trained / "reward")
    grown = deepened(model, 2 * model.shape.num_hidden_layers)
    ids = torch.arange(2, 60)[None]
    with torch.inference_mode():
        assert torch.equal(grown(ids), model(ids))
    assert load_model(trained / "large").shape == grown.shape


def test_a_seed_makes_the_same_weights_again(trained: Path, tmp_path: Path) -> None:
    again = run(tmp_path, "--model", "trunk")
    first, second = (load_file(folder / "trunk" / "model.safetensors") for folder in (trained, again))
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_a_model_is_not_trained_from_a_missing_trunk(tmp_path: Path) -> None:
    result = CliRunner().invoke(train, ["--out", str(tmp_path), "--model", "generator"])
    assert result.exit_code == 2
    assert "train --model trunk" in result.output


def test_another_seed_makes_other_weights(trained: Path, tmp_path: Path) -> None:
    other = run(tmp_path, "--model", "trunk", "--seed", "2")
    first, second = (load_file(folder / "trunk" / "model.safetensors") for folder in (trained, other))
    assert any(first[name].shape != second[name].shape or not torch.equal(first[name], second[name]) for name in first)


def test_only_solutions_are_taught_and_none_of_them_is_held_out() -> None:
    tokenizer = train_tokenizer(tokenizer_corpus(seed=0, count=500))
    for batch in Corpus(tokenizer, seed=0, batch_tokens=4096).batches((1.0, 1.0, 1.0, 1.0, 1.0))[:8]:
        for ids, taught in zip(batch.ids, batch.taught, strict=True):
            untaught = tokenizer.decode(ids[~torch.cat((torch.tensor([False]), taught))].tolist())
            prompts = [line for line in untaught.splitlines() if line not in SYSTEM_LINES]
            assert prompts
            assert all(line.endswith((".", "?")) and not is_held_out(line) for line in prompts)


def test_an_orthogonalised_update_has_singular_values_near_one() -> None:
    matrices = torch.randn(3, 16, 48, generator=torch.Generator().manual_seed(0))
    singular = torch.linalg.svdvals(orthogonalised(matrices))
    assert singular.min() > 0.6
    assert singular.max() < 1.3
