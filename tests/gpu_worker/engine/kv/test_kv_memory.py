"""A generator and a reward model share one memory."""

import random
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from precision import PRECISIONS

from ponder_worker.engine import Engine, InvalidSetting, Memory, SamplingParams, Sequence
from ponder_worker.engine.kv.kv_memory import slab_bytes


@pytest.fixture(scope="module", params=PRECISIONS)
def alone(llama_folder: Callable[..., Path], request: pytest.FixtureRequest) -> list[Engine]:
    """Two engines: a page of the first has two layers of two heads, one of the second three layers of one head."""
    reward = llama_folder(num_key_value_heads=1, num_hidden_layers=3)
    return [
        Engine.load(llama_folder(), num_pages=1024, **request.param),
        Engine.load(reward, num_pages=1024, **({"dtype": torch.bfloat16} | request.param)),
    ]


def sharing(alone: list[Engine], num_tokens: int, **fields: int) -> list[Engine]:
    """Returns engines that share a memory of num_tokens of the first model."""
    models = [engine.model for engine in alone]
    memory = Memory(num_tokens * models[0].kv_bytes_per_token, models, 16)
    return [Engine(engine.model, engine.tokenizer, memory=memory, max_sequences=16, **fields) for engine in alone]


def work(engines: list[Engine], seed: int) -> list[Sequence]:
    """Adds requests: the first engine generates half of them, the second scores the others."""
    chance = random.Random(seed)
    sequences = []
    for number in range(16):
        tokens = [chance.randrange(3, 300) for _ in range(chance.randint(2, 90))]
        if number % 2:
            sequences.append(engines[1].score(tokens, start=1))
        else:
            sampling = SamplingParams(chance.randint(1, 60), seed=number, stop_at_end=False)
            sequences.append(engines[0].generate(tokens, prompt_length=len(tokens), sampling=sampling))
    return sequences


def finish(engines: list[Engine]) -> None:
    for _ in range(5000):
        if not any(engine.has_work for engine in engines):
            return
        for engine in engines:
            engine.step()
            engine.check()
    raise AssertionError("a sequence starves")


@pytest.mark.parametrize("overlap", [False, True])
def test_models_of_different_pages_compute_in_one_memory_what_they_compute_alone(
    alone: list[Engine], overlap: bool
) -> None:
    expected = work(alone, 1)
    finish(alone)
    engines = sharing(alone, 490, overlap=overlap)
    for _ in range(2):  # the second time on memory that the other one wrote
        found = work(engines, 1)
        finish(engines)
        for sequence, wanted in zip(found, expected, strict=True):
            assert sequence.tokens == wanted.tokens
            assert sequence.logprobs == pytest.approx(wanted.logprobs, abs=1e-4 if sequence.sampling else 0.1)
    assert all(engine.pages["evicted_pages"] > 0 for engine in engines)


def test_one_model_can_have_most_of_the_memory_while_the_other_rests(alone: list[Engine]) -> None:
    generator, reward = sharing(alone, 490)
    whole = generator.free_tokens
    assert generator.longest > whole // 2
    generator.generate([5] * 40, prompt_length=40, sampling=SamplingParams(generator.longest - 40, stop_at_end=False))
    finish([generator, reward])
    assert reward.free_tokens > 0


@pytest.mark.parametrize("kv_bytes", [1 << 24, 1 << 30, 100 << 30])
def test_slabs_are_many_and_of_few_pages_however_large_the_memory(kv_bytes: int) -> None:
    size = slab_bytes(kv_bytes, [24 * 8192, 28 * 4096], [8192, 4096])
    assert size % 8192 == 0
    assert kv_bytes // size >= 32
    assert 1 <= size // (28 * 4096) <= 1024


def test_a_memory_too_small_to_be_traded_is_refused(alone: list[Engine]) -> None:
    with pytest.raises(InvalidSetting, match=r"kv_bytes is 1000; it must be at least \d+, two slabs a model"):
        Memory(1000, [engine.model for engine in alone], 16)
