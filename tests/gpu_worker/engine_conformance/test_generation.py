"""The promises of every engine about the sequences that it generates."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from ponder_worker.engine import InvalidRequest, Output, OversizedRequest, SamplingParams, Sequence
from ponder_worker.engine.inference_engine import InferenceEngine
from ponder_worker.models.checkpoint.tokenizer import Tokenizer

from .conftest import HEAD_DIM

PROMPT = list(range(40, 80))


def finish(engine: InferenceEngine) -> list[Output]:
    outputs = []
    while engine.has_work:
        outputs += engine.step()
    return outputs


def greedy(max_tokens: int, **fields: object) -> SamplingParams:
    return SamplingParams(max_tokens, temperature=0.0, stop_at_end=False, **fields)  # type: ignore[arg-type]


def sampled(max_tokens: int, seed: int = 0, **fields: object) -> SamplingParams:
    return SamplingParams(max_tokens, seed=seed, stop_at_end=False, **fields)  # type: ignore[arg-type]


def generate(engine: InferenceEngine, sampling: SamplingParams, *generated: int) -> Sequence:
    """Generates from the prompt alone, or from ids that were generated before."""
    sequence = engine.generate([*PROMPT, *generated], prompt_length=len(PROMPT), sampling=sampling)
    finish(engine)
    return sequence


def test_the_greedy_tokens_and_their_logprobs_are_those_of_transformers(
    llm: InferenceEngine, llama_folder: Callable[..., Path]
) -> None:
    import transformers

    sequence = generate(llm, greedy(24))
    model = transformers.AutoModelForCausalLM.from_pretrained(llama_folder(head_dim=HEAD_DIM), dtype=torch.float32)
    ids = torch.tensor([PROMPT])
    with torch.no_grad():
        for _ in range(24):
            ids = torch.cat([ids, model(ids).logits[:, -1:].argmax(-1)], dim=1)
        logprobs = model(ids).logits[0, len(PROMPT) - 1 : -1].log_softmax(-1)
    assert sequence.tokens == ids[0].tolist()
    assert sequence.logprobs == pytest.approx(logprobs.max(-1).values.tolist(), abs=1e-3)
    assert sequence.finish_reason == "length"


def test_the_same_seed_samples_the_same_tokens_and_another_seed_others(llm: InferenceEngine) -> None:
    first, again, other = (generate(llm, sampled(24, seed)) for seed in (1, 1, 2))
    assert first.tokens == again.tokens
    assert first.tokens != other.tokens


def test_a_prompt_of_several_steps_samples_as_one_that_is_computed_in_one(llm: InferenceEngine) -> None:
    """The second time, most of it is found in the cache."""
    prompt = [10 + index % 90 for index in range(300)]
    found = []
    for _ in range(2):
        sequence = llm.generate(prompt, prompt_length=300, sampling=sampled(16, 5))
        finish(llm)
        found.append(sequence.tokens)
    assert found[0] == found[1]


def test_logprobs_are_those_before_temperature_and_filters(llm: InferenceEngine) -> None:
    sequence = generate(llm, sampled(12, 3, temperature=0.5, top_k=5))
    score = llm.score(sequence.tokens, start=len(PROMPT))
    finish(llm)
    assert sequence.logprobs == pytest.approx(score.logprobs, abs=1e-3)


def test_a_half_grown_sequence_goes_on_from_its_ids(llm: InferenceEngine) -> None:
    whole = generate(llm, greedy(20))
    resumed = generate(llm, greedy(20), *whole.generated[:7])
    assert resumed.tokens == whole.tokens
    assert resumed.logprobs == pytest.approx(whole.logprobs[7:], abs=1e-3)
    assert resumed.finish_reason == "length"


def test_a_resumed_sequence_does_not_draw_the_noise_of_its_beginning_again(llm: InferenceEngine) -> None:
    """With the same noise at each token, a sequence that was interrupted at every token would repeat itself."""
    tokens = []
    for _ in range(16):
        sequence = llm.generate([*PROMPT, *tokens], prompt_length=len(PROMPT), sampling=sampled(16, 5, temperature=2.0))
        llm.step()
        tokens.append(sequence.tokens[-1])
        llm.cancel(sequence)
        finish(llm)
    assert len(set(tokens)) > 8


def test_a_sequence_that_was_complete_ends_at_once_and_costs_nothing(llm: InferenceEngine) -> None:
    computed = llm.counters.computed_tokens
    sequence = llm.generate(PROMPT, prompt_length=30, sampling=greedy(10))
    (output,) = finish(llm)
    assert (output.sequence, output.tokens, output.finish_reason) == (sequence, [], "length")
    assert llm.counters.computed_tokens == computed


def test_an_end_token_stops_a_sequence_and_is_kept(llm: InferenceEngine) -> None:
    whole = generate(llm, greedy(20))
    end = whole.generated[6]
    stopped = generate(llm, greedy(20, stop_token_ids=frozenset({end})))
    assert stopped.generated == whole.generated[: whole.generated.index(end) + 1]
    assert (stopped.finish_reason, stopped.stop_token_id) == ("stop", end)


def text_of(llm: InferenceEngine, ids: list[int]) -> str:
    stream = llm.tokenizer.stream()
    return "".join(map(stream.push, ids))


def test_a_stop_string_is_found_across_tokens_and_its_length_is_told(llm: InferenceEngine) -> None:
    whole = generate(llm, greedy(20))
    string = text_of(llm, whole.generated[4:6])
    first = text_of(llm, whole.generated).index(string)
    stopped = generate(llm, greedy(20, stop_strings=(string,)))
    text = text_of(llm, stopped.generated)
    assert (stopped.finish_reason, stopped.stop_string) == ("stop", string)
    assert len(text) - stopped.stop_trailing_chars == first


@pytest.mark.parametrize("cut", [1, 5])
def test_a_stop_string_is_found_across_the_seam_of_a_resume(llm: InferenceEngine, cut: int) -> None:
    whole = generate(llm, greedy(20))
    string = text_of(llm, whole.generated[4:6])
    stopped = generate(llm, greedy(20, stop_strings=(string,)))
    resumed = generate(llm, greedy(20, stop_strings=(string,)), *stopped.generated[:cut])
    assert resumed.tokens == stopped.tokens
    assert (resumed.stop_string, resumed.stop_trailing_chars) == (string, stopped.stop_trailing_chars)


def test_a_stop_string_may_begin_in_the_turn_that_is_continued(llm: InferenceEngine) -> None:
    whole = generate(llm, greedy(20))
    string = text_of(llm, whole.generated[4:6])
    length = len(PROMPT) + 5
    sequence = llm.generate(
        whole.tokens[:length],
        prompt_length=length,
        turn_start=len(PROMPT),
        sampling=greedy(8, stop_strings=(string,)),
    )
    finish(llm)
    assert sequence.tokens == whole.tokens[: length + 1]
    assert sequence.stop_string == string


def test_a_separator_must_begin_in_the_step_that_it_ends(llm: InferenceEngine) -> None:
    whole = generate(llm, greedy(20))
    separator = text_of(llm, whole.generated[4:6])
    length = len(PROMPT) + 5
    sequence = llm.generate(
        whole.tokens[:length], prompt_length=length, turn_start=len(PROMPT), sampling=greedy(3, separator=separator)
    )
    finish(llm)
    assert len(sequence.generated) == 3
    assert generate(llm, greedy(20, separator=separator)).stop_string == separator


def test_what_could_never_fit_is_refused(llm: InferenceEngine) -> None:
    with pytest.raises(OversizedRequest):
        llm.generate(PROMPT, prompt_length=len(PROMPT), sampling=greedy(llm.longest))
    with pytest.raises(InvalidRequest):
        llm.generate([300], prompt_length=1, sampling=greedy(1))
    fits = llm.longest - len(PROMPT)
    assert len(generate(llm, greedy(fits)).tokens) == llm.longest


def test_the_tokenizer_is_that_of_the_folder(llm: InferenceEngine, llama_folder: Callable[..., Path]) -> None:
    assert llm.tokenizer.encode("abc") == Tokenizer(llama_folder(head_dim=HEAD_DIM)).encode("abc")
