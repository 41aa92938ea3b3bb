"""The promises of an engine to its callers."""

import random
from pathlib import Path
from typing import Any

import pytest
import torch
from precision import PRECISIONS

from ponder_worker.engine import Engine, InvalidRequest, Output, OversizedRequest, SamplingParams, Sequence
from ponder_worker.engine.engine_error import InvalidSetting

PROMPT = list(range(40, 80))


@pytest.fixture
def llm(tiny_llama: Path) -> Engine:
    return Engine.load(tiny_llama, num_pages=256, max_step_tokens=128, max_sequences=32)


def finish(engine: Engine) -> list[Output]:
    outputs = []
    while engine.has_work:
        outputs += engine.step()
        engine.check()
    return outputs


def sampled(num_tokens: int, seed: int = 0, **fields: object) -> SamplingParams:
    return SamplingParams(num_tokens, seed=seed, stop_at_end=False, **fields)  # type: ignore[arg-type]


def crowd(engine: Engine, size: int) -> list[Sequence]:
    chance = random.Random(size)
    sequences = []
    for seed in range(size):
        prompt = [chance.randrange(3, 300) for _ in range(chance.randint(1, 90))]
        sequences.append(
            engine.generate(prompt, prompt_length=len(prompt), sampling=sampled(chance.randint(1, 60), seed))
        )
    return sequences


def test_the_same_tokens_are_sampled_alone_and_in_a_crowd(llm: Engine) -> None:
    alone = llm.generate(PROMPT, prompt_length=40, sampling=sampled(80, 7))
    finish(llm)
    crowd(llm, 10)
    for _ in range(5):
        llm.step()
    amid = llm.generate(PROMPT, prompt_length=40, sampling=sampled(80, 7))
    crowd(llm, 10)
    finish(llm)
    assert amid.tokens == alone.tokens


def test_other_seeds_sample_other_tokens(llm: Engine) -> None:
    sequences = [llm.generate(PROMPT, prompt_length=40, sampling=sampled(30, seed)) for seed in range(8)]
    finish(llm)
    assert len({tuple(sequence.tokens) for sequence in sequences}) == 8


@pytest.mark.parametrize("cut", [0, 1, 8, 24, 59])
def test_a_sequence_resumed_on_its_ids_goes_on_as_if_never_interrupted(tiny_llama: Path, cut: int) -> None:
    sampling = sampled(60, 3, presence_penalty=0.8, frequency_penalty=0.3, top_p=0.95)
    engine = Engine.load(tiny_llama, num_pages=64)
    whole = engine.generate(PROMPT, prompt_length=40, sampling=sampling)
    finish(engine)
    elsewhere = Engine.load(tiny_llama, num_pages=64)
    resumed = elsewhere.generate(whole.tokens[: 40 + cut], prompt_length=40, sampling=sampling)
    finish(elsewhere)
    assert resumed.tokens == whole.tokens
    assert resumed.logprobs == pytest.approx(whole.logprobs[cut:], abs=1e-4)


def test_a_sequence_resumed_when_it_was_complete_ends_at_once(llm: Engine) -> None:
    sequence = llm.generate(PROMPT, prompt_length=30, sampling=sampled(10))
    outputs = finish(llm)
    assert [(output.sequence, output.tokens, output.finish_reason) for output in outputs] == [(sequence, [], "length")]
    assert llm.counters.computed_tokens == 0


def test_siblings_that_arrive_together_compute_their_prompt_once(llm: Engine) -> None:
    for seed in range(8):
        llm.generate(range(3, 3 + 100), prompt_length=100, sampling=sampled(1, seed))
    finish(llm)
    assert llm.counters.computed_tokens == 100 + 7 * 4  # six pages of 16 are shared, the last four tokens are not


def test_siblings_whose_prompt_fills_its_pages_compute_one_token_each(llm: Engine) -> None:
    for seed in range(8):
        llm.generate(range(3, 3 + 96), prompt_length=96, sampling=sampled(1, seed))
    finish(llm)
    assert llm.counters.computed_tokens == 96 + 7


def test_a_shared_pages_bytes_are_divided_among_its_readers(llm: Engine) -> None:
    for seed in range(4):
        llm.generate(range(3, 3 + 48), prompt_length=48, sampling=sampled(2, seed))
    llm.step()
    outputs = llm.step()
    token = llm.model.kv_bytes_per_token
    assert [output.computed_tokens for output in outputs] == [1] * 4
    assert [output.kv_bytes_read for output in outputs] == pytest.approx([token * (48 / 4 + 1)] * 4)


def test_sequences_of_different_salts_share_nothing(llm: Engine) -> None:
    for salt in (b"one", b"two"):
        llm.generate(range(3, 3 + 96), prompt_length=96, sampling=sampled(1), salt=salt)
    finish(llm)
    assert llm.counters.prefix_hits == 0


def test_without_prefix_caching_every_sequence_computes_all_its_tokens(llm: Engine) -> None:
    alone = Engine(llm.model, llm.tokenizer, num_pages=64, prefix_caching=False)
    texts = []
    for engine in (llm, alone):
        sequences = [engine.generate(range(3, 3 + 40), prompt_length=40, sampling=sampled(4, seed)) for seed in (1, 2)]
        finish(engine)
        texts.append([sequence.tokens for sequence in sequences])
    assert texts[0] == texts[1]
    assert (llm.counters.prompt_tokens > 0, llm.counters.prefix_hits > 0, alone.counters.prefix_hits) == (True, True, 0)
    alone.check()


def test_a_cancelled_sequence_gives_its_pages_back_after_the_next_step(llm: Engine) -> None:
    sequences = crowd(llm, 6)
    llm.step()
    for sequence in sequences:
        llm.cancel(sequence)
    assert llm.step() == []
    llm.check()
    assert not llm.has_work
    assert llm.free_tokens == 256 * 16
    assert {sequence.finish_reason for sequence in sequences} == {"cancelled"}


def test_preempted_sequences_are_recomputed_and_counted(tiny_llama: Path) -> None:
    engine = Engine.load(tiny_llama, num_pages=16, max_step_tokens=64, max_sequences=8)
    sequences = [engine.generate([3 + seed] * 8, prompt_length=8, sampling=sampled(200, seed)) for seed in range(4)]
    finish(engine)
    assert [len(sequence.tokens) for sequence in sequences] == [208] * 4
    assert engine.counters.num_preemptions > 0
    assert engine.counters.recomputed_tokens > 0


def test_latencies_are_counted_from_arrival_by_the_clock_that_was_given(llm: Engine) -> None:
    times = iter(range(1000))
    engine = Engine(llm.model, llm.tokenizer, num_pages=64, max_sequences=1, clock=lambda: float(next(times)))
    for seed in range(2):
        engine.generate(PROMPT, prompt_length=40, sampling=sampled(3, seed))  # they arrive at 0 and 1
    finish(engine)  # a step is planned at 2, 4, 6 and ends at 3, 5, 7; the second sequence comes in at 8
    found = {name: (sum(counts), sum_s) for name, (counts, sum_s) in engine.latencies.as_numbers().items()}
    assert found == {
        "request_queue_time_seconds": (2, 2 + 7),
        "time_to_first_token_seconds": (2, 3 + 8),
        "inter_token_latency_seconds": (4, 8),
        "e2e_request_latency_seconds": (2, 7 + 12),
    }


def test_a_long_prefill_does_not_stall_decoding(llm: Engine) -> None:
    decoding = llm.generate(PROMPT, prompt_length=40, sampling=sampled(100))
    llm.step()
    llm.generate([5] * 500, prompt_length=500, sampling=sampled(1))
    for _ in range(4):
        assert decoding in [output.sequence for output in llm.step() if output.tokens]


def test_a_stop_token_is_kept_and_marked(llm: Engine) -> None:
    free = llm.generate(PROMPT, prompt_length=40, sampling=sampled(50, 1))
    finish(llm)
    wanted = free.tokens[60]
    first = free.tokens.index(wanted, 40)
    sequence = llm.generate(PROMPT, prompt_length=40, sampling=sampled(50, 1, stop_token_ids=frozenset({wanted})))
    finish(llm)
    assert sequence.tokens == free.tokens[: first + 1]
    assert (sequence.finish_reason, sequence.stop_token_id) == ("stop", wanted)


def test_nothing_stops_a_sequence_before_its_least_length(llm: Engine) -> None:
    free = llm.generate(PROMPT, prompt_length=40, sampling=sampled(50, 1))
    finish(llm)
    text = llm.tokenizer.decode(free.generated[:3])[-1]
    wanted = frozenset(free.tokens[40:45])
    sequence = llm.generate(PROMPT, prompt_length=40, sampling=sampled(50, 1, min_tokens=20, stop_token_ids=wanted))
    by_text = llm.generate(PROMPT, prompt_length=40, sampling=sampled(50, 1, min_tokens=20, stop_strings=(text,)))
    finish(llm)
    assert not wanted & set(sequence.generated[:19])
    assert min(len(sequence.generated), len(by_text.generated)) >= 20


def test_a_biased_token_is_always_drawn_and_a_bias_outside_the_vocabulary_is_refused(llm: Engine) -> None:
    sequence = llm.generate(PROMPT, prompt_length=40, sampling=sampled(10, logit_bias=((77, 1000.0),)))
    finish(llm)
    assert sequence.generated == [77] * 10
    with pytest.raises(InvalidRequest, match=r"logit_bias\[0\] is 300"):
        llm.generate(PROMPT, prompt_length=40, sampling=sampled(10, logit_bias=((300, 1.0),)))


def test_the_models_end_token_stops_unless_asked_not_to(llm: Engine) -> None:
    llm.tokenizer.eos_token_ids = frozenset(range(300))
    ends = llm.generate(PROMPT, prompt_length=40, sampling=SamplingParams(5))
    unstopped = llm.generate(PROMPT, prompt_length=40, sampling=SamplingParams(5, stop_at_end=False))
    finish(llm)
    assert (len(ends.tokens), len(unstopped.tokens)) == (41, 45)


def test_a_stop_string_is_found_across_token_borders_and_after_a_resumption(llm: Engine) -> None:
    free = llm.generate(PROMPT, prompt_length=40, sampling=sampled(50, 2))
    finish(llm)
    stream = llm.tokenizer.stream()
    texts = [stream.push(token) for token in free.generated]
    wanted = (texts[20] + texts[21] + texts[22])[-3:]
    place = "".join(texts).index(wanted)
    sampling = sampled(50, 2, stop_strings=("never seen", wanted))
    sequence = llm.generate(PROMPT, prompt_length=40, sampling=sampling)
    resumed = llm.generate(free.tokens[:41], prompt_length=40, sampling=sampling)
    finish(llm)
    text = llm.tokenizer.decode(sequence.generated)
    assert (sequence.finish_reason, sequence.stop_string) == ("stop", wanted)
    assert text[: len(text) - sequence.stop_trailing_chars] == "".join(texts)[:place]
    assert resumed.tokens == sequence.tokens


def test_a_stop_string_in_the_prompt_is_no_reason_to_stop(llm: Engine) -> None:
    prompt = llm.tokenizer.encode("STOP")
    sequence = llm.generate(prompt, prompt_length=len(prompt), sampling=sampled(5, 9, stop_strings=("STOP",)))
    finish(llm)
    assert sequence.finish_reason == "length"


def test_a_request_that_can_never_fit_is_refused_when_it_is_made(tiny_llama: Path) -> None:
    engine = Engine.load(tiny_llama, num_pages=4, max_sequences=4)
    with pytest.raises(OversizedRequest, match="may grow to 65 tokens, 5 pages of 16; the pool has 4 pages"):
        engine.generate(PROMPT, prompt_length=40, sampling=SamplingParams(25))
    with pytest.raises(OversizedRequest, match="may grow to 540 tokens; the model's context is 512"):
        engine.generate(PROMPT, prompt_length=40, sampling=SamplingParams(500))
    with pytest.raises(OversizedRequest):
        engine.score([5] * 65, start=1)
    assert not engine.has_work


def test_requests_that_make_no_sense_are_refused_by_name(llm: Engine) -> None:
    with pytest.raises(InvalidRequest, match=r"tokens\[1\] is 300; the vocabulary is 0 to 299"):
        llm.generate([5, 300], prompt_length=1, sampling=SamplingParams(5))
    with pytest.raises(InvalidRequest, match="prompt_length is 0"):
        llm.generate([], prompt_length=0, sampling=SamplingParams(5))
    with pytest.raises(InvalidRequest, match="turn_start is 3; it must be 0 to prompt_length, 2"):
        llm.generate([5, 6, 7], prompt_length=2, turn_start=3, sampling=SamplingParams(5))
    with pytest.raises(InvalidRequest, match="start is 2"):
        llm.score([5, 6], start=2)


@pytest.mark.parametrize("page_size", [1, 8, 24, 64])
def test_a_page_that_the_kernels_cannot_read_is_refused(llm: Engine, page_size: int) -> None:
    with pytest.raises(InvalidSetting, match=f"page_size is {page_size}; it must be 16 or 32"):
        Engine(llm.model, llm.tokenizer, num_pages=4, page_size=page_size)


def test_sizes_that_make_no_engine_are_refused(llm: Engine) -> None:
    with pytest.raises(InvalidSetting, match="max_step_tokens is 16"):
        Engine(llm.model, llm.tokenizer, num_pages=8, max_step_tokens=16, max_sequences=32)


@pytest.mark.parametrize("precision", PRECISIONS)
def test_a_fork_copies_its_last_page_and_goes_on_as_if_alone(tiny_llama: Path, precision: dict[str, Any]) -> None:
    llm = Engine.load(tiny_llama, num_pages=256, **precision)
    prompt = list(range(3, 3 + 104))
    samplings = [SamplingParams(30, seed=seed, stop_at_end=False) for seed in (1, 2)]
    first = llm.generate(prompt, prompt_length=104, sampling=samplings[0])
    for _ in range(4):
        llm.step()
    fork = llm.generate(prompt, prompt_length=104, sampling=samplings[1])
    finish(llm)
    assert llm.counters.num_copied_pages == 1
    for sequence, sampling in zip((first, fork), samplings, strict=True):
        engine = Engine(llm.model, llm.tokenizer, num_pages=16)
        alone = engine.generate(prompt, prompt_length=104, sampling=sampling)
        finish(engine)
        assert sequence.tokens == alone.tokens
        assert sequence.logprobs == pytest.approx(alone.logprobs, abs=1e-4 if llm.model.dtype == torch.float32 else 0.1)


def test_pages_left_by_others_never_reach_a_new_sequence(llm: Engine) -> None:
    alone = llm.generate(PROMPT, prompt_length=40, sampling=sampled(40, 4))
    finish(llm)
    for _ in range(3):
        crowd(llm, 20)
        finish(llm)
    again = llm.generate(PROMPT, prompt_length=40, sampling=sampled(40, 4), salt=b"fresh")
    finish(llm)
    assert again.tokens == alone.tokens
    assert not torch.isnan(torch.tensor(again.logprobs)).any()
