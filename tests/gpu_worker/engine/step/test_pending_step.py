"""An engine that plans a step while the one before it is computed, beside one that does not."""

import random
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ponder_worker.engine import Engine, SamplingParams, Sequence
from ponder_worker.engine.kv.kv_offload import OffloadCosts


@pytest.fixture(scope="module")
def llm(tiny_llama: Path) -> Engine:
    return Engine.load(tiny_llama, num_pages=512)


def beside(llm: Engine, *, overlap: bool, num_pages: int = 256, num_offloaded: int = 0) -> Engine:
    return Engine(
        llm.model,
        llm.tokenizer,
        num_pages=num_pages,
        max_step_tokens=64,
        max_sequences=16,
        num_offload_pages=num_offloaded,
        offload_costs=OffloadCosts(token_s=1.0, page_s=0.0),
        overlap=overlap,
    )


def crowd(engine: Engine, chance: random.Random) -> list[Sequence]:
    """Requests that end in every way."""
    sequences = []
    for seed in range(chance.randint(2, 10)):
        prompt = [chance.randrange(3, 300) for _ in range(chance.randint(1, 70))]
        if chance.random() < 0.2 and len(prompt) > 1:
            sequences.append(engine.score(prompt, start=chance.randrange(1, len(prompt))))
            continue
        sampling = SamplingParams(
            chance.randint(1, 50),
            seed=seed,
            stop_at_end=False,
            stop_token_ids=frozenset(chance.sample(range(300), chance.choice([0, 12]))),
            stop_strings=chance.choice([(), ("a", "th"), ("never",)]),
            presence_penalty=chance.choice([0.0, 0.0, 0.7]),
            min_tokens=chance.choice([0, 1]),
        )
        sequences.append(engine.generate(prompt, prompt_length=len(prompt), sampling=sampling))
    return sequences


def run(engine: Engine, seed: int, cancelled: dict[int, int]) -> list[Sequence]:
    """Runs a crowd to its end. cancelled: the step after which a sequence is cancelled, by its index."""
    sequences = crowd(engine, random.Random(seed))
    told: dict[Sequence, list[int]] = {sequence: [] for sequence in sequences}
    for step in range(2000):
        for output in engine.step():
            assert output.sequence.finish_reason != "cancelled"
            told[output.sequence] += output.tokens
        engine.check()
        for index, when in cancelled.items():
            if step == when and index < len(sequences):
                engine.cancel(sequences[index])
        if not engine.has_work:
            break
    assert all(sequence.finish_reason for sequence in sequences)
    for sequence, tokens in told.items():
        assert sequence.sampling is None or tokens == sequence.generated
    return sequences


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    seed=st.integers(0, 1 << 30),
    num_pages=st.sampled_from([8, 12, 256]),
    num_offloaded=st.sampled_from([0, 64]),
    cancelled=st.dictionaries(st.integers(0, 9), st.integers(0, 20), max_size=2),
)
def test_the_tokens_are_those_of_an_engine_that_waits_for_each_step(
    llm: Engine, seed: int, num_pages: int, num_offloaded: int, cancelled: dict[int, int]
) -> None:
    expected = run(beside(llm, overlap=False), seed, {})
    engine = beside(llm, overlap=True, num_pages=num_pages, num_offloaded=num_offloaded)
    for index, (sequence, wanted) in enumerate(zip(run(engine, seed, cancelled), expected, strict=True)):
        if sequence.finish_reason == "cancelled":
            assert index in cancelled
            assert sequence.tokens == wanted.tokens[: len(sequence.tokens)]
        else:
            assert (sequence.tokens, sequence.finish_reason) == (wanted.tokens, wanted.finish_reason)
            assert sequence.stop_string == wanted.stop_string
            assert sequence.logprobs == pytest.approx(wanted.logprobs, abs=1e-4)


def test_a_stop_that_is_not_known_yet_costs_one_token_and_the_last_one_none(llm: Engine) -> None:
    engine = beside(llm, overlap=True)
    for stops in (frozenset(range(300)), frozenset[int]()):
        sampling = SamplingParams(2, seed=1, stop_at_end=False, stop_token_ids=stops)
        sequence = engine.generate([5] * 9, prompt_length=9, sampling=sampling)
        while engine.has_work:
            engine.step()
        assert len(sequence.generated) == (1 if stops else 2)
        assert engine.counters.wasted_tokens == 1


def test_a_cancelled_sequence_gives_its_pages_back_after_the_next_step_while_one_is_under_way(llm: Engine) -> None:
    engine = beside(llm, overlap=True)
    sequences = crowd(engine, random.Random(3))
    engine.step()
    for sequence in sequences:
        engine.cancel(sequence)
    assert engine.step() == []
    engine.check()
    assert engine.pages["unique_pages"] == 0
    assert not engine.has_work
