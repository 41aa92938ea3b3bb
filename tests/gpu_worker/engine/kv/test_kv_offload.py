"""With too few pages for all sequences, pages wait in host memory or are computed again."""

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from precision import PRECISIONS

from ponder_worker.engine import Engine, SamplingParams, Sequence
from ponder_worker.engine.counters import Counters
from ponder_worker.engine.kv.kv_cache_manager import KVCacheManager, PageTransfers
from ponder_worker.engine.kv.kv_offload import KVOffload, OffloadCosts
from ponder_worker.engine.kv.page_pool import PagePairs, PagePool
from ponder_worker.engine.kv.prefix_cache import PrefixMatch
from ponder_worker.engine.kv.slab_allocator import SlabAllocator
from ponder_worker.engine.sequence import Priority

PAGE = 4
FREE_MOVES = OffloadCosts(token_s=1.0, page_s=0.0)


def siblings_in(pool: PagePool) -> list[Sequence]:
    """Returns two sequences that share two full pages and hold two more each, with six tokens computed in those."""
    siblings = [Sequence([7] * 8 + [index] * 9, 8, SamplingParams(20)) for index in (1, 2)]
    for sequence in siblings:
        sequence.table.key_tokens(sequence.tokens, PAGE)
        match = pool.prefixes.match(sequence.tables, sequence.tokens, [None], sequence.first_needed)
        pool.share(sequence.table, match.pages[0])
        pool.grow(sequence.table, 14)
        pool.prefixes.register(sequence.table, 14)
        sequence.num_computed = 14
    return siblings


def manager_of(pool: PagePool, offload: KVOffload) -> KVCacheManager:
    """Returns a manager for a model whose layers see all tokens."""
    return KVCacheManager(pool, SlabAllocator(), offload, Counters(), windows=[None], max_step_tokens=64)


def resume(kv: KVCacheManager, sequence: Sequence) -> tuple[PrefixMatch, PageTransfers]:
    """Gives a preempted sequence its pages again. Returns what was found of it, and the copies that it takes."""
    match, transfers = kv.match(sequence), PageTransfers()
    kv.share(sequence, match)
    assert kv.begin(sequence, match, room=64)
    kv.fill(sequence, match, transfers)
    return match, transfers


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


def test_a_small_models_pages_are_computed_again_rather_than_moved() -> None:
    costs = OffloadCosts.estimated(flops_per_token=2 * 1_000_000, page_bytes=16 * 1024)
    assert 2 * costs.page_s > 16 * costs.token_s


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


@pytest.mark.parametrize("overlap", [False, True])
@pytest.mark.parametrize("layer_types", [["sliding_attention"] * 2, ["sliding_attention", "full_attention"]])
def test_of_preempted_sequences_with_a_window_what_they_still_hold_comes_back(
    llama_folder: Callable[..., Path], layer_types: list[str], overlap: bool
) -> None:
    folder = llama_folder(family="Gemma3", head_dim=16, sliding_window=20, layer_types=layer_types)
    plenty = Engine.load(folder, num_pages=1024)
    scarce = Engine(
        plenty.model,
        plenty.tokenizer,
        num_pages=12,
        max_step_tokens=16,
        max_sequences=2,
        num_offload_pages=400,
        offload_costs=OffloadCosts(token_s=1.0, page_s=0.0),
        overlap=overlap,
    )
    found = []
    for engine in (plenty, scarce):
        sequences = [generate(engine, seed, "batch") for seed in range(4)]
        for _ in range(60):
            engine.step()
        urgent = [generate(engine, seed, "interactive") for seed in range(4, 8)]
        finish(engine)
        found.append([sequence.tokens for sequence in (*sequences, *urgent)])
    assert found[0] == found[1]
    counters = scarce.counters
    assert counters.num_preemptions > 0
    assert counters.returned_tokens > 0
    assert counters.recomputed_tokens == 0


def generate(engine: Engine, seed: int, priority: Priority) -> Sequence:
    prompt = [(7 * token + seed) % 250 for token in range(3, 45)]
    sampling = SamplingParams(90, seed=seed, stop_at_end=False)
    return engine.generate(prompt, prompt_length=len(prompt), sampling=sampling, priority=priority)


def test_only_the_pages_that_nobody_else_holds_are_copied() -> None:
    pool, copied = PagePool(8, PAGE), PagePairs()
    offload = KVOffload(2, FREE_MOVES, copied.extend)
    _, sequence = siblings_in(pool)
    offload.save(sequence, pool)
    assert [page for page, _ in copied] == list(sequence.table.pages[2:])
    offload.check([sequence])


@pytest.mark.parametrize(("num_pages", "page_s", "is_saved"), [(2, 2.9, True), (1, 2.9, False), (2, 3.0, False)])
def test_pages_are_copied_only_where_they_all_fit_and_computing_them_again_costs_more(
    num_pages: int, page_s: float, is_saved: bool
) -> None:
    pool = PagePool(8, PAGE)
    offload = KVOffload(num_pages, OffloadCosts(token_s=2.0, page_s=page_s), lambda _: None)
    _, sequence = siblings_in(pool)  # two pages there and back, or six tokens
    offload.save(sequence, pool)
    assert (sequence.offloaded is not None) == is_saved


@pytest.mark.parametrize(("num_found", "num_tokens", "num_copies"), [(1, 4, 0), (2, 14, 2), (3, 14, 1), (4, 16, 0)])
def test_what_the_pool_still_has_does_not_come_back_from_the_host(
    num_found: int, num_tokens: int, num_copies: int
) -> None:
    pool, copied = PagePool(8, PAGE), PagePairs()
    kv = manager_of(pool, KVOffload(2, FREE_MOVES, copied.extend))
    siblings = siblings_in(pool)
    sequence = siblings[1]
    pool.prefixes.register(sequence.table, num_found * PAGE)
    pool.prefixes.forget(sequence.table.pages[num_found:])
    kv.preempt(sequence)
    match, transfers = resume(kv, sequence)
    hosts = [host for _, host in copied][2 - num_copies :]
    assert (match.num_tokens, sequence.num_computed) == (num_tokens, num_tokens)
    assert transfers.returns == list(zip(hosts, sequence.table.pages[4 - num_copies : 4], strict=True))
    kv.check(siblings)


def test_pages_of_the_host_are_free_again_with_the_step_after_the_one_that_reads_them() -> None:
    pool = PagePool(8, PAGE)
    offload = KVOffload(2, FREE_MOVES, lambda _: None)
    kv = manager_of(pool, offload)
    first, second = siblings_in(pool)
    pool.prefixes.forget(second.table.pages[2:])
    kv.preempt(second)
    _, transfers = resume(kv, second)
    assert len(transfers.returns) == 2
    for is_saved in (False, True):
        offload.save(first, pool)
        assert (first.offloaded is not None) == is_saved
        kv.begin_step()
