"""What every engine promises of its steps: what they cost, whom they serve, and what they leave behind."""

import itertools
from itertools import pairwise

import pytest

from ponder_worker.engine.inference_engine import InferenceEngine

from .test_generation import PROMPT, finish, greedy, sampled


def test_outputs_say_what_was_computed_and_together_it_is_every_token_once(llm: InferenceEngine) -> None:
    prompt = [3 + number % 290 for number in range(300)]  # more than one step computes
    before = llm.counters.computed_tokens
    sequence = llm.generate(prompt, prompt_length=300, sampling=greedy(5), salt=b"alone")
    outputs = finish(llm)
    assert {output.sequence for output in outputs} == {sequence}
    chunks = [range(output.start, output.start + output.computed_tokens) for output in outputs]
    assert [position for chunk in chunks for position in chunk] == list(range(304))
    assert [token for output in outputs for token in output.tokens] == sequence.generated
    assert [output.finish_reason for output in outputs] == [None] * (len(outputs) - 1) + ["length"]
    assert llm.counters.computed_tokens - before == 304


def test_steps_become_smaller_while_they_take_long_and_larger_again(
    llm: InferenceEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Reports and cancellations are answered between two steps."""

    salts = itertools.count()

    def chunks_of_a_prompt() -> list[int]:
        llm.generate(
            [3 + number % 290 for number in range(300)], prompt_length=300, sampling=greedy(1), salt=b"%d" % next(salts)
        )
        return [output.computed_tokens for output in finish(llm)]

        chunks_of_a_prompt()

    assert max(chunks_of_a_prompt()) > 64
    size = llm._step_size if hasattr(llm, "_step_size") else llm._scheduler.step_size  # type: ignore[attr-defined]
    seconds = [0.0]

    def slow_clock() -> float:
        seconds[0] += 0.06 * size.num_tokens
        return seconds[0]

    with monkeypatch.context() as slow:
        slow.setattr(llm, "_clock", slow_clock)
        chunks_of_a_prompt()
        assert max(chunks_of_a_prompt()) <= 32
    chunks_of_a_prompt()
    assert max(chunks_of_a_prompt()) > 64


def test_the_bytes_read_grow_with_the_context(llm: InferenceEngine) -> None:
    prompt = [3 + number % 290 for number in range(100)]
    llm.generate(prompt, prompt_length=100, sampling=greedy(4), salt=b"bytes")
    first, *decodes = finish(llm)
    assert first.kv_bytes_read > 0
    differences = {later.kv_bytes_read - earlier.kv_bytes_read for earlier, later in pairwise(decodes)}
    assert len(differences) == 1, "each step reads one token more"
    token = differences.pop()
    assert 101 * token == decodes[0].kv_bytes_read
    assert token == 2 * 2 * 2 * 32 * 4  # keys and values, layers, heads, their dimension, float32


def test_a_prompt_that_was_computed_is_found_again_under_the_same_salt_alone(llm: InferenceEngine) -> None:
    prompt = [3 + number % 287 for number in range(128)]
    found = []
    for salt in (b"one", b"one", b"two"):
        llm.generate(prompt, prompt_length=128, sampling=greedy(1), salt=salt)
        (output,) = [output for output in finish(llm) if output.tokens]
        found.append(output.start)
    assert found == [found[0], found[1], found[0]]
    assert found[1] > found[0] + 64


def test_a_cancelled_sequence_has_no_more_outputs_and_leaves_nothing_behind(llm: InferenceEngine) -> None:
    kept, dropped = (llm.generate(PROMPT, prompt_length=len(PROMPT), sampling=sampled(20, seed)) for seed in (1, 2))
    llm.step()
    llm.cancel(dropped)
    outputs = finish(llm)
    assert {output.sequence for output in outputs} == {kept}
    assert (kept.finish_reason, dropped.finish_reason) == ("length", "cancelled")
    llm.cancel(kept)  # one that has ended stays as it is
    assert kept.finish_reason == "length"


def test_a_sequence_can_be_cancelled_before_its_first_step(llm: InferenceEngine) -> None:
    waiting = llm.generate(PROMPT, prompt_length=len(PROMPT), sampling=greedy(5))
    complete = llm.generate(PROMPT, prompt_length=30, sampling=greedy(10))
    llm.cancel(waiting)
    llm.cancel(complete)
    finish(llm)
    assert waiting.tokens == PROMPT


def test_the_more_urgent_are_served_first(llm: InferenceEngine) -> None:
    """Twice as many as run at a time. The urgent come last, and one of the others is promoted."""
    batch = [llm.generate(PROMPT, prompt_length=len(PROMPT), sampling=sampled(3, seed)) for seed in range(30)]
    urgent = [
        llm.generate(PROMPT, prompt_length=len(PROMPT), sampling=sampled(3, seed), priority="interactive")
        for seed in range(8)
    ]
    llm.promote(batch[-1], "interactive")
    ended = [output.sequence for output in finish(llm) if output.finish_reason]
    places = {sequence: place for place, sequence in enumerate(ended)}
    assert max(places[sequence] for sequence in [*urgent, batch[-1]]) < 16


def test_what_an_old_family_asks_for_late_overtakes_the_younger_ones(llm: InferenceEngine) -> None:
    """Otherwise all searches that sample in waves would end together, at the end."""
    batch = [
        llm.generate(PROMPT, prompt_length=len(PROMPT), sampling=sampled(3, seed), family=1 + seed // 8)
        for seed in range(40)
    ]
    late = [llm.generate(PROMPT, prompt_length=len(PROMPT), sampling=sampled(3, seed), family=1) for seed in (50, 51)]
    ended = [output.sequence for output in finish(llm) if output.finish_reason]
    places = {sequence: place for place, sequence in enumerate(ended)}
    assert max(places[sequence] for sequence in late) < 16 <= min(places[sequence] for sequence in batch[24:])


def test_it_counts_what_runs_and_what_waits(llm: InferenceEngine) -> None:
    free = llm.free_tokens
    assert (llm.num_running, llm.num_waiting) == (0, 0)
    for seed in range(20):
        llm.generate(PROMPT, prompt_length=len(PROMPT), sampling=sampled(4, seed))
    assert (llm.num_running, llm.num_waiting) == (0, 20)
    llm.step()
    while llm.num_running < llm.max_sequences:
        llm.step()
    assert llm.num_running + llm.num_waiting == 20
    assert llm.free_tokens < free
    finish(llm)
    assert (llm.num_running, llm.num_waiting) == (0, 0)


def test_latencies_and_counters_cover_every_sequence(llm: InferenceEngine) -> None:
    latencies = llm.latencies
    before = sum(latencies.e2e_request_latency_seconds.counts), llm.counters.generated_tokens
    for seed in range(3):
        llm.generate(PROMPT, prompt_length=len(PROMPT), sampling=sampled(4, seed))
    finish(llm)
    after = sum(latencies.e2e_request_latency_seconds.counts), llm.counters.generated_tokens
    assert (after[0] - before[0], after[1] - before[1]) == (3, 12)
