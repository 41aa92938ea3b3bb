"""Models that look back on a window give back the pages that fell out of it, and go on from what is left of them."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tape import PAGE, Tape, TapeEngine

from ponder_worker.engine import Engine, SamplingParams
from ponder_worker.engine.kv.page_pool import PagePool
from ponder_worker.engine.kv.prefix_cache import PrefixCache, Window
from ponder_worker.engine.page_table import PageTable
from ponder_worker.engine.scheduling.scheduler import Scheduler
from ponder_worker.engine.sequence import Sequence
from ponder_worker.models.kv_pages import LayerGroups


def finish(engine: Engine) -> int:
    """Steps until nothing is left. Returns the most pages that were held after a step."""
    most = 0
    while engine.has_work:
        engine.step()
        engine.check()
        most = max(most, int(engine.pages["unique_pages"]))
    return most


def greedy(num_tokens: int) -> SamplingParams:
    return SamplingParams(num_tokens, temperature=0.0, stop_at_end=False)


@pytest.mark.parametrize("window", [1, 4, 5, 30])
def test_a_long_sequence_holds_no_more_pages_than_its_window_has(window: int) -> None:
    scheduler = Scheduler(PagePool(64, PAGE), max_step_tokens=16, max_sequences=1, windows=(window,))
    engine = TapeEngine(scheduler, Tape(windows=(window,)))
    scheduler.add(Sequence([1], 1, SamplingParams(200)))
    most = 0
    while engine.has_work:
        engine.step()
        most = max(most, scheduler.pool.num_held)
    assert most <= -(-window // PAGE) + 2
    assert scheduler.counters.generated_tokens == 200


@pytest.mark.parametrize("windows", [(5, None), (5, 5, 5, None), (9, None, None)])
def test_of_layers_of_both_kinds_those_that_see_everything_keep_their_pages(windows: tuple[int | None, ...]) -> None:
    scheduler = Scheduler(PagePool(256, PAGE), max_step_tokens=16, max_sequences=1, windows=windows)
    engine = TapeEngine(scheduler, Tape(windows=windows))
    scheduler.add(Sequence([1] * 100, 100, SamplingParams(100)))
    num_local = sum(window is not None for window in windows)
    while engine.has_work:
        engine.step()
        length = scheduler.running[0].num_computed if scheduler.running else 0
        num_kept = -(-max(length, 100) // PAGE) * (len(windows) - num_local)
        assert scheduler.pool.num_held <= num_kept + num_local * ((9 + 16) // PAGE + 2)
    assert scheduler.counters.generated_tokens == 100


def test_layers_are_divided_so_that_the_pages_that_grow_have_no_empty_places() -> None:
    gemma_3 = [None if (layer + 1) % 6 == 0 else 512 for layer in range(26)]
    groups = LayerGroups.of(gemma_3, 32768)
    assert groups.windows == (512,) * 6 + (None,)
    assert groups.layers_per_page == 4
    assert [groups.of_group(group, gemma_3) for group in (5, 6)] == [[512] * 2, [None] * 4]
    assert len({*zip(groups.group_of_layer, groups.place_of_layer, strict=True)}) == 26
    assert LayerGroups.of([None] * 21 + [512] * 7, 32768).windows == (512, None, None, None)


@pytest.mark.parametrize(
    ("windows", "of_group"),
    [([None, None], None), ([20, 20], 20), ([20, 512], 512), ([None, 1024], None), ([20] * 10 + [None], None)],
)
def test_layers_stay_together_that_are_alike_or_could_only_be_divided_into_many_groups(
    windows: list[int | None], of_group: int | None
) -> None:
    groups = LayerGroups.of(windows, 1024)
    assert (groups.windows, groups.layers_per_page) == ((of_group,), len(windows))


def windowed(pages: list[int], *, window: int, first_needed: int, missing: set[int]) -> tuple[list[int], int]:
    """Matches a prefix whose pages another sequence registered, and of which some were evicted."""
    cache, tokens = PrefixCache(PAGE, num_remembered=0), list(range(PAGE * len(pages)))
    parent, child = PageTable(), PageTable()
    for table in (parent, child):
        table.key_tokens(tokens, PAGE)
    parent.pages.extend(pages)
    cache.register(parent, len(tokens))
    cache.forget(missing)
    match = cache.match([child], tokens, [Window(window, PAGE)], first_needed)
    return match.pages[0], match.num_skipped[0]


def test_pages_before_the_window_need_not_be_found() -> None:
    assert windowed([7, 8, 9, 3], window=5, first_needed=99, missing=set()) == ([9, 3], 2)
    assert windowed([7, 8, 9, 3], window=5, first_needed=99, missing={7, 8}) == ([9, 3], 2)
    assert windowed([7, 8, 9, 3], window=5, first_needed=99, missing={9}) == ([7, 8], 0)
    assert windowed([7, 8, 9, 3], window=5, first_needed=99, missing={7, 9}) == ([], 0)
    assert windowed([7, 8, 9, 3], window=5, first_needed=9, missing={7}) == ([8, 9, 3], 1)


@settings(deadline=None)
@given(
    num_pages=st.integers(0, 8),
    window=st.integers(1, 20),
    first_needed=st.integers(0, 40),
    missing=st.sets(st.integers(0, 7)),
)
def test_the_longest_prefix_is_found_whose_window_is_there(
    num_pages: int, window: int, first_needed: int, missing: set[int]
) -> None:
    found, num_skipped = windowed(list(range(num_pages)), window=window, first_needed=first_needed, missing=missing)

    def is_usable(num_full: int) -> bool:
        oldest = max(0, min(num_full * PAGE, first_needed) - window)
        return not missing & set(range(oldest // PAGE, num_full))

    num_full = max(count for count in range(num_pages + 1) if is_usable(count))
    assert num_skipped + len(found) == num_full
    assert found == list(range(num_skipped, num_full))
    assert not found or num_skipped == max(0, min(num_full * PAGE, first_needed) - window) // PAGE


MISTRAL = {"family": "Mistral", "sliding_window": 33}
LOCAL, GLOBAL = "sliding_attention", "full_attention"
GEMMA_3 = {"family": "Gemma3", "head_dim": 16, "sliding_window": 33}
MIXED: list[dict[str, Any]] = [
    {**GEMMA_3, "num_hidden_layers": 4, "layer_types": [LOCAL, LOCAL, GLOBAL, LOCAL]},
    {"family": "Qwen2", "use_sliding_window": True, "sliding_window": 24, "max_window_layers": 1},
]


def name_of(value: object) -> str:
    return str(value["family"] if isinstance(value, dict) else value)


@pytest.mark.parametrize(
    ("fields", "num_pages", "is_scarce"),
    [(MISTRAL, 40, False), (MISTRAL, 15, True), (MIXED[0], 60, False), *((fields, 14, True) for fields in MIXED)],
    ids=name_of,
)
def test_windowed_sequences_that_share_are_preempted_and_resume_generate_the_tokens_of_transformers(
    llama_folder: Callable[..., Path], fields: dict[str, Any], num_pages: int, is_scarce: bool
) -> None:
    from transformers import AutoModelForCausalLM

    folder = llama_folder(**fields)
    engine = Engine.load(folder, num_pages=num_pages, max_step_tokens=64, max_sequences=16)
    prompts = [[*range(10, 47), *range(each, 6 * each)] for each in range(1, 8)]
    sequences = [engine.generate(each, prompt_length=len(each), sampling=greedy(150)) for each in prompts]
    finish(engine)
    assert (engine.counters.num_preemptions > 0) == is_scarce
    again = engine.generate(sequences[-1].tokens, prompt_length=len(sequences[-1].tokens), sampling=greedy(15))
    before = engine.counters.computed_tokens
    finish(engine)
    assert engine.counters.computed_tokens - before < 15 + 16
    peer = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    for sequence in (*sequences, again):
        with torch.inference_mode():
            logits = peer(torch.tensor([sequence.tokens])).logits[0]
        first = len(sequence.tokens) - 15
        assert sequence.tokens[first:] == logits[first - 1 : -1].argmax(-1).tolist()


def test_a_windowed_sequence_leaves_room_for_others_as_it_grows(llama_folder: Callable[..., Path]) -> None:
    tokens, most = [], []
    for window in (33, 512):  # the wider one holds all pages of both
        engine = Engine.load(llama_folder(family="Mistral", sliding_window=window), num_pages=64)
        engine.generate(list(range(20)), prompt_length=20, sampling=greedy(300))
        most.append(finish(engine))
        tokens.append(engine.counters.generated_tokens)
    assert tokens == [300, 300]
    assert most[0] <= 33 // 16 + 2
    assert most[1] == 20


def test_the_pages_of_a_long_gemma_3_sequence_grow_with_its_global_layers_only(
    llama_folder: Callable[..., Path],
) -> None:
    """Six layers look back on 33 tokens, and one on all of them; each has pages of its own."""
    folder = llama_folder(**GEMMA_3, num_hidden_layers=7)
    engine = Engine.load(folder, num_pages=20, max_step_tokens=32, max_sequences=4)
    sequence = engine.generate(list(range(100)), prompt_length=100, sampling=greedy(200))
    held = {}
    while engine.has_work:
        engine.step()
        held[sequence.num_computed] = engine.pages["unique_pages"]
    assert [held[length] for length in (112, 192, 288)] == [length // 16 + 6 * 4 for length in (112, 192, 288)]
    assert max(held.values()) <= 300 // 16 + 1 + 6 * 6


def test_a_sequence_of_a_windowed_model_may_be_longer_than_all_pages_together(
    llama_folder: Callable[..., Path],
) -> None:
    folder = llama_folder(**MISTRAL)
    tokens = [token % 250 for token in range(400)]
    plenty, scarce = (
        Engine.load(folder, num_pages=num_pages, max_step_tokens=32, max_sequences=4) for num_pages in (64, 8)
    )
    assert (plenty.longest, scarce.longest) == (512, 512)
    found = [engine.score(tokens, start=1) for engine in (plenty, scarce)]
    assert finish(plenty) >= 4
    assert finish(scarce) <= 8
    assert scarce.counters.num_preemptions == 0
    assert found[1].logprobs == pytest.approx(found[0].logprobs, abs=1e-4)
