"""Sampling, scoring and the probe, on models too small to have learnt anything and on scores made by hand."""

from collections.abc import Sequence
from random import Random

import pytest
import torch

from ponder_worker.demo.problems import Problem, held_out_problems
from ponder_worker.demo.training.evaluate import (
    Solved,
    area_under_curve,
    corrupted,
    figures,
    probe,
    read_answer,
)
from ponder_worker.demo.training.llama import Llama, LlamaShape
from ponder_worker.demo.training.padded_sampling import log_probabilities, sample

PROBLEM = Problem("Compute 2 * 3 + 4.", ("2 * 3 = 6", "6 + 4 = 10"), 10, 2, "expression")
END = 0


@pytest.fixture(scope="module")
def model() -> Llama:
    torch.manual_seed(0)
    shape = LlamaShape(vocab_size=40, hidden_size=32, intermediate_size=48, num_hidden_layers=2, head_dim=8)
    model = Llama(shape)
    for parameter in model.parameters():
        parameter.data.mul_(8.0 if parameter.ndim == 2 else 1.0)
    return model.eval()


def test_a_likeliest_continuation_from_the_cache_is_the_one_that_the_whole_model_finds(model: Llama) -> None:
    prompts = [[3, 4, 5], [7, 8, 9, 10, 11, 12]]
    outputs = sample(model, prompts, num_samples=1, temperature=0.0, max_new_tokens=12, end=END, random=noise(0))
    for prompt, (output,) in zip(prompts, outputs, strict=True):
        ids = list(prompt)
        for token in output:
            with torch.inference_mode():
                logits = model.logits(model(torch.tensor([ids])))[0, -1]
            assert logits.max() - logits[token] < 0.05, "bf16 arithmetic may break a tie, no more"
            ids.append(token)


def test_the_same_noise_gives_the_same_samples(model: Llama) -> None:
    def draw(seed: int) -> list[list[list[int]]]:
        return sample(model, [[3, 4]], num_samples=8, temperature=1.0, max_new_tokens=9, end=END, random=noise(seed))

    assert draw(1) == draw(1)
    assert draw(1) != draw(2)


def test_a_sample_stops_at_the_end_token_or_at_its_limit(model: Llama) -> None:
    outputs = sample(model, [[3]], num_samples=64, temperature=1.0, max_new_tokens=20, end=END, random=noise(0))
    assert all(END not in output and len(output) <= 20 for output in outputs[0])


def test_log_probabilities_do_not_depend_on_what_else_is_in_the_batch(model: Llama) -> None:
    short, long = [3, 4, 5], [9, 8, 7, 6, 5, 4, 3, 2]
    together = log_probabilities(model, [long, short])
    assert together[1] == pytest.approx(log_probabilities(model, [short])[0], abs=0.05)
    assert list(map(len, together)) == [7, 2]


def test_a_corrupted_step_keeps_everything_but_its_result() -> None:
    assert corrupted(PROBLEM, 0, 10) == ["2 * 3 = 16"]
    assert corrupted(PROBLEM, 1, 1) == ["2 * 3 = 6", "6 + 4 = 11"]


def test_the_probe_passes_a_score_that_checks_arithmetic() -> None:
    def score(solutions: Sequence[tuple[str, Sequence[str]]]) -> list[list[float]]:
        return [[0.0 if right(step) else -9.0 for step in steps] for _, steps in solutions]

    result = probe(score, held_out_problems(10), Random(0))
    assert (result.found, result.accused) == ({1: 1.0, 10: 1.0}, 0.0)


def test_the_probe_fails_a_score_that_does_not_look() -> None:
    rng = Random(0)

    def score(solutions: Sequence[tuple[str, Sequence[str]]]) -> list[list[float]]:
        return [[rng.random() for _ in steps] for _, steps in solutions]

    result = probe(score, held_out_problems(40), Random(0))
    assert max(result.found.values()) < 0.1
    assert result.auc[1] == pytest.approx(0.5, abs=0.1)


def test_the_area_under_the_curve_counts_ties_half() -> None:
    assert area_under_curve([1.0, 2.0], [1.0, 0.0]) == 3.5 / 4


def test_figures_count_over_the_first_n_samples() -> None:
    solved = Solved(PROBLEM, answers=(9, 10, 9, None), scores=(-3.0, -1.0, -4.0, 0.0), num_tokens=(10, 12, 10, 8))
    result = figures([solved])
    assert result.one_sample == 0.25
    assert result.majority == {1: 0.0, 2: 0.0, 4: 0.0}
    assert result.best_of == {1: 0.0, 2: 1.0, 4: 1.0}, "a sample without an answer is never the best"
    assert result.pass_at == {1: 0.0, 2: 1.0, 4: 1.0}
    assert result.tokens_per_sample == 10.0


@pytest.mark.parametrize(
    ("text", "answer"),
    [("3 + 4 = 7\nAnswer: 7", 7), ("Answer: 12", 12), ("3 + 4 = 7", None), ("Answer: 7\n3 + 4 = 7", None), ("", None)],
)
def test_an_answer_is_read_from_the_last_line_alone(text: str, answer: int | None) -> None:
    assert read_answer(text) == answer


def right(step: str) -> bool:
    calculation, result = step.split(" = ")[-2:]
    return int(eval(calculation)) == int(result)


def noise(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)
