"""The shipped weights: small, readable by other libraries, and as good as the model card says."""

import json
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoTokenizer, LlamaForCausalLM

from ponder_worker import demo
from ponder_worker.demo.problems import held_out_problems
from ponder_worker.demo.training.evaluate import Pair, figures, likelihood_probe, solve

WEIGHTS = Path(demo.__file__).parent / "weights"


@pytest.fixture(scope="module")
def pair() -> Pair:
    return Pair.load(WEIGHTS)


def test_all_models_together_are_smaller_than_twelve_megabytes() -> None:
    assert sum(path.stat().st_size for path in WEIGHTS.rglob("*")) < 12_000_000


def test_all_models_read_the_same_tokens() -> None:
    assert len({(WEIGHTS / name / "tokenizer.json").read_text() for name in ("generator", "reward", "large")}) == 1


def test_anybody_may_read_the_weights() -> None:
    assert all(path.stat().st_mode & 0o044 == 0o044 for path in WEIGHTS.rglob("*.safetensors"))


def test_transformers_answers_an_easy_problem_with_the_folder_unchanged() -> None:
    tokenizer: Any = AutoTokenizer.from_pretrained(WEIGHTS / "generator")
    model: Any = LlamaForCausalLM.from_pretrained(WEIGHTS / "generator")
    message = [{"role": "user", "content": "Compute 3 * (5 + 7)."}]
    inputs = tokenizer.apply_chat_template(message, return_tensors="pt", return_dict=True)
    output = model.generate(**inputs, do_sample=False)[0]
    assert tokenizer.decode(output, skip_special_tokens=True).endswith("5 + 7 = 12\n3 * 12 = 36\nAnswer: 36")
    assert output[-1] == tokenizer.eos_token_id


def test_the_generator_solves_easy_problems_and_leaves_hard_ones_to_more_thinking(pair: Pair) -> None:
    problems = held_out_problems(9)
    solved = solve(pair, problems, num_samples=4, temperature=1.0, seed=0)
    easy, hard = (figures([s for s in solved if s.problem.level in levels]) for levels in ((1, 2), (4, 5)))
    assert easy.one_sample > 0.9
    assert 0.2 < hard.one_sample < 0.7
    assert hard.pass_at[4] > hard.one_sample


def test_the_large_generator_solves_what_is_too_hard_for_the_small_one(pair: Pair) -> None:
    problems = [problem for problem in held_out_problems(12) if problem.level >= 4]
    small, large = (
        figures(solve(one, problems, num_samples=4, temperature=1.0, seed=0))
        for one in (pair, Pair.load(WEIGHTS, "large"))
    )
    assert large.one_sample > small.one_sample + 0.1


def test_the_reward_model_finds_a_wrong_result(pair: Pair) -> None:
    result = likelihood_probe(pair, held_out_problems(12), seed=0)
    assert min(result.auc.values()) > 0.98


def test_the_reward_folder_says_that_a_step_is_scored_by_its_likelihood() -> None:
    kind = json.loads((WEIGHTS / "reward" / "reward.json").read_text())
    assert kind == {"kind": "likelihood", "aggregate": "sum"}
