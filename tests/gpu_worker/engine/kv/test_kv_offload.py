"""With too few pages for all sequences, pages wait in host memory or are computed again."""

import random
from pathlib import Path
from typing import Any

import pytest
from precision import PRECISIONS

from ponder_worker.engine import Engine, SamplingParams, Sequence
from ponder_worker.engine.kv.kv_offload import OffloadCosts


def crowd(engine: Engine) -> list[Sequence]:
    chance = random.Random(24)
    sequences = []
    for seed in range(24):
        prompt = [chance.randrange(3, 300) for _ in range(chance.randint(1, 90))]
        sampling = SamplingParams(chance.randint(1, 60), seed=seed, stop_at_end=False)
        sequences.append(engine.generate(prompt, prompt_length=len(prompt), sampling=sampling))
    return sequences


def finish(engine: Engine) -> None:
    for _ in range(5000):
        if not engine.has_work:
            return
        engine.step()
        engine.check()
    raise AssertionError("a sequence starves")


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("overlap", [False, True])
@pytest.mark.parametrize(("token_s", "num_offloaded"), [(1.0, 400), (1.0, 5), (0.0, 400)])
def test_with_four_times_more_demand_than_pages_all_finish_with_the_tokens_of_an_empty_engine(
    tiny_llama: Path, token_s: float, num_offloaded: int, overlap: bool, precision: dict[str, Any]
) -> None:
    plenty = Engine.load(tiny_llama, num_pages=1024, **precision)
    expected = crowd(plenty)
    finish(plenty)
    demand = sum(-(-len(sequence.tokens) // 16) for sequence in expected)
    scarce = Engine(
        plenty.model,
        plenty.tokenizer,
        num_pages=demand // 4,
        max_step_tokens=64,
        max_sequences=24,
        num_offload_pages=num_offloaded,
        offload_costs=OffloadCosts(token_s=token_s, page_s=0.1),
        overlap=overlap,
    )
    sequences = crowd(scarce)
    finish(scarce)
    assert [sequence.tokens for sequence in sequences] == [sequence.tokens for sequence in expected]
    counters = scarce.counters
    assert counters.num_preemptions > 0
    assert (counters.returned_tokens > 0) == (token_s > 0)  # what is free to compute again is not worth a move
    assert (counters.recomputed_tokens > 0) == (token_s == 0 or num_offloaded == 5)


def test_a_large_models_pages_are_moved_rather_than_computed_again() -> None:
    costs = OffloadCosts.estimated(flops_per_token=2 * 7_000_000_000, page_bytes=16 * 57_344)
    assert 2 * costs.page_s < 16 * costs.token_s


def test_pages_that_a_sibling_still_holds_are_not_moved(tiny_llama: Path) -> None:
    engine = Engine.load(tiny_llama, num_pages=1)
    engine = Engine(
        engine.model,
        engine.tokenizer,
        num_pages=14,
        max_sequences=2,
        num_offload_pages=64,
        offload_costs=OffloadCosts(token_s=1.0, page_s=0.0),
    )
    prompt = list(range(3, 3 + 64))
    siblings = [
        engine.generate(prompt, prompt_length=64, sampling=SamplingParams(100, seed=s, stop_at_end=False))
        for s in (1, 2)
    ]
    finish(engine)
    assert [len(sequence.tokens) for sequence in siblings] == [164] * 2
    assert engine.counters.num_preemptions == 1
    assert 0 < engine.counters.returned_tokens < 164 - 64
    assert engine.counters.recomputed_tokens == 0
