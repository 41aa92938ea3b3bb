"""The promises of every engine about the sampling fields that filter, change or report the probabilities of tokens."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from ponder_worker.engine import InvalidRequest
from ponder_worker.engine.inference_engine import InferenceEngine

from .conftest import HEAD_DIM
from .test_generation import PROMPT, finish, generate, greedy, sampled

END = 2


@pytest.fixture
def logprobs_after(llama_folder: Callable[..., Path]) -> Callable[[list[int]], torch.Tensor]:
    """The log-probabilities of all tokens at each place behind the prompt, as transformers computes them."""
    import transformers

    model = transformers.AutoModelForCausalLM.from_pretrained(llama_folder(head_dim=HEAD_DIM), dtype=torch.float32)

    def compute(tokens: list[int]) -> torch.Tensor:
        with torch.no_grad():
            found: torch.Tensor = model(torch.tensor([tokens])).logits[0, len(PROMPT) - 1 : -1].log_softmax(-1)
        return found

    return compute


@pytest.mark.parametrize("fields", [{}, {"temperature": 0.0}, {"top_k": 2, "presence_penalty": 1.0}], ids=str)
def test_the_likeliest_tokens_are_the_models_own_best_first(
    llm: InferenceEngine, logprobs_after: Callable[[list[int]], torch.Tensor], fields: dict[str, float]
) -> None:
    sequence = generate(llm, sampled(10, 4, top_logprobs=5, **fields))
    best = logprobs_after(sequence.tokens).topk(5)
    assert [[token for token, _ in top] for top in sequence.top_logprobs] == best.indices.tolist()
    for top, wanted in zip(sequence.top_logprobs, best.values.tolist(), strict=True):
        assert [logprob for _, logprob in top] == pytest.approx(wanted, abs=1e-3)


def test_only_who_asks_for_the_likeliest_tokens_has_them_and_a_resumed_sequence_those_of_its_new_ones(
    llm: InferenceEngine,
) -> None:
    samplings = [sampled(6, 1, top_logprobs=3), sampled(6, 2), sampled(6, 3, top_logprobs=20)]
    sequences = [llm.generate(PROMPT, prompt_length=len(PROMPT), sampling=sampling) for sampling in samplings]
    finish(llm)
    assert [[len(top) for top in sequence.top_logprobs] for sequence in sequences] == [[3] * 6, [], [20] * 6]
    resumed = generate(llm, samplings[0], *sequences[0].generated[:4])
    assert [len(top) for top in resumed.top_logprobs] == [3, 3]


@pytest.mark.parametrize("seed", range(3))
def test_top_k_leaves_so_many_of_the_likeliest(
    llm: InferenceEngine, logprobs_after: Callable[[list[int]], torch.Tensor], seed: int
) -> None:
    sequence = generate(llm, sampled(30, seed, top_k=3, temperature=2.0))
    best = logprobs_after(sequence.tokens).topk(3).indices.tolist()
    assert all(token in likeliest for token, likeliest in zip(sequence.generated, best, strict=True))
    assert any(token != likeliest[0] for token, likeliest in zip(sequence.generated, best, strict=True))


@pytest.mark.parametrize("seed", range(3))
def test_top_p_leaves_the_likeliest_that_make_up_so_much(
    llm: InferenceEngine, logprobs_after: Callable[[list[int]], torch.Tensor], seed: int
) -> None:
    sequence = generate(llm, sampled(30, seed, top_p=0.3))
    probabilities = logprobs_after(sequence.tokens).exp()
    chosen = probabilities.gather(1, torch.tensor(sequence.generated)[:, None])
    likelier = (probabilities * (probabilities > chosen)).sum(-1)
    assert likelier.max() < 0.3 + 1e-3
    assert likelier.max() > 0


@pytest.mark.parametrize("seed", range(3))
def test_min_p_leaves_what_has_that_share_of_the_likeliest(
    llm: InferenceEngine, logprobs_after: Callable[[list[int]], torch.Tensor], seed: int
) -> None:
    sequence = generate(llm, sampled(30, seed, min_p=0.4))
    probabilities = logprobs_after(sequence.tokens).exp()
    chosen = probabilities.gather(1, torch.tensor(sequence.generated)[:, None])[:, 0]
    shares = chosen / probabilities.amax(-1)
    assert 0.4 - 1e-3 < shares.min() < 1


def test_the_models_end_token_is_obeyed_or_ignored(llm: InferenceEngine) -> None:
    towards = ((END, 1000.0),)
    stopped = generate(llm, replace(greedy(5, logit_bias=towards), stop_at_end=True))
    assert (stopped.generated, stopped.finish_reason, stopped.stop_token_id) == ([END], "stop", END)
    ignored = generate(llm, greedy(5, logit_bias=towards))
    assert (ignored.generated, ignored.finish_reason) == ([END] * 5, "length")


def test_before_min_tokens_no_end_token_is_sampled_also_where_the_sequence_was_resumed(llm: InferenceEngine) -> None:
    end = generate(llm, greedy(1)).generated[0]
    sampling = greedy(12, stop_token_ids=frozenset({end}), min_tokens=8)
    for resumed in ((), (60, 61, 62)):
        sequence = generate(llm, sampling, *resumed)
        assert end not in sequence.generated[:7]
        assert len(sequence.generated) >= 8


@pytest.mark.parametrize(
    "fields", [{"presence_penalty": 1.5, "frequency_penalty": 1.0}, {"repetition_penalty": 1.8}], ids=str
)
@pytest.mark.parametrize("cut", [3, 11])
def test_penalties_remember_the_ids_before_the_seam_of_a_resume(
    llm: InferenceEngine, fields: dict[str, float], cut: int
) -> None:
    plain, whole = generate(llm, greedy(24)), generate(llm, greedy(24, **fields))
    assert whole.tokens != plain.tokens, "the penalty changes nothing"
    assert generate(llm, greedy(24, **fields), *whole.generated[:cut]).tokens == whole.tokens


@pytest.mark.parametrize(
    "fields", [{"presence_penalty": 1.5, "frequency_penalty": 1.0}, {"repetition_penalty": 1.8}], ids=str
)
@pytest.mark.parametrize("cut", [1, 9])
def test_a_step_is_penalised_for_the_tokens_of_the_steps_before_it(
    llm: InferenceEngine, fields: dict[str, float], cut: int
) -> None:
    """The same text, with a border between two steps in it, and the second of them interrupted."""
    whole = generate(llm, greedy(24, **fields))
    border = len(PROMPT) + cut
    for resumed in (0, 4):
        step = llm.generate(
            whole.tokens[: border + resumed],
            prompt_length=border,
            turn_start=len(PROMPT),
            sampling=greedy(24 - cut, **fields),
        )
        finish(llm)
        assert step.tokens == whole.tokens


def test_a_logit_bias_bans_and_forces_tokens(llm: InferenceEngine) -> None:
    banned = generate(llm, greedy(1)).generated[0]
    assert generate(llm, greedy(6, logit_bias=((banned, -100.0),))).generated[0] != banned
    assert generate(llm, greedy(3, logit_bias=((77, 1000.0),))).generated == [77, 77, 77]


def test_edits_of_one_sequence_leave_its_neighbours_alone(llm: InferenceEngine) -> None:
    plain = generate(llm, greedy(12))
    samplings = [
        greedy(12, presence_penalty=2.0),
        greedy(5),
        greedy(12),
        greedy(12, logit_bias=((77, 1000.0),)),
        greedy(12),
    ]
    sequences = [llm.generate(PROMPT, prompt_length=len(PROMPT), sampling=sampling) for sampling in samplings]
    finish(llm)
    assert [sequences[index].tokens == plain.tokens for index in (2, 4)] == [True, True]
    assert sequences[1].tokens == plain.tokens[: len(PROMPT) + 5]
    assert sequences[3].generated == [77] * 12


def test_a_token_outside_the_vocabulary_is_refused_by_name(llm: InferenceEngine) -> None:
    for fields in ({"logit_bias": ((300, 1.0),)}, {"stop_token_ids": frozenset({300})}):
        with pytest.raises(InvalidRequest, match=next(iter(fields))):
            llm.generate(PROMPT, prompt_length=len(PROMPT), sampling=greedy(1, **fields))
