"""The engine against transformers, which computes the same model without pages."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from ponder_worker.engine import Engine, SamplingParams
from ponder_worker.models import transformer
from ponder_worker.models.transformer import Transformer

PAGE = 16
FAMILIES: list[dict[str, Any]] = [
    {},
    {"num_key_value_heads": 4, "tie_word_embeddings": False},
    {"num_key_value_heads": 1, "attention_bias": True, "mlp_bias": True},
    {"head_dim": 32, "rope_parameters": {"rope_type": "default", "rope_theta": 500000.0}},
    {
        "rope_parameters": {
            "rope_type": "llama3",
            "rope_theta": 10000.0,
            "factor": 8.0,
            "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
            "original_max_position_embeddings": 64,
        }
    },
    {"family": "Qwen2"},
    {"family": "Qwen2", "use_sliding_window": True, "sliding_window": 24, "max_window_layers": 1},
    {"family": "Qwen3", "head_dim": 32, "tie_word_embeddings": False},
    {"family": "Qwen3", "head_dim": 16, "attention_bias": True},
    {"family": "Mistral", "sliding_window": None},
    {"family": "Mistral", "sliding_window": 33},
]


def peer_logits(folder: Path, tokens: list[int]) -> torch.Tensor:
    from transformers import AutoModelForCausalLM

    with torch.inference_mode():
        logits: torch.Tensor = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)(
            torch.tensor([tokens])
        ).logits
    return logits[0]


def own_logits(folder: Path, tokens: list[int], chunks: list[int]) -> torch.Tensor:
    """Logits at every position, the tokens computed in chunks of these lengths."""
    model = Transformer.load(folder, dtype=torch.float32, device=torch.device("cpu"))
    num_pages = -(-len(tokens) // PAGE)
    pages = model.new_pages(num_pages + 3, PAGE)
    table = torch.randperm(num_pages + 3)[:num_pages]
    logits, start = [], 0
    with torch.inference_mode():
        for length in chunks:
            positions = torch.arange(start, start + length)
            where = model.layouts(torch.tensor([length]), torch.tensor([start + length]), table[None], pages)
            slots = table[positions // PAGE] * PAGE + positions % PAGE
            hidden = model.forward(torch.tensor(tokens)[positions], positions, slots, where, pages)
            logits.append(model.logits(hidden))
            start += length
    return torch.cat(logits)


def finish(engine: Engine) -> None:
    while engine.has_work:
        engine.step()
        engine.check()


def greedy(num_tokens: int) -> SamplingParams:
    return SamplingParams(num_tokens, temperature=0.0, stop_at_end=False)


@pytest.mark.parametrize("fields", FAMILIES)
def test_logits_equal_those_of_transformers_at_every_position(
    llama_folder: Callable[..., Path], fields: dict[str, Any]
) -> None:
    folder = llama_folder(**fields)
    tokens = torch.randint(3, 300, (100,), generator=torch.Generator().manual_seed(1)).tolist()
    expected = peer_logits(folder, tokens)
    for chunks in ([100], [1] * 100, [15, 1, 1, 16, 31, 33, 1, 2]):
        torch.testing.assert_close(own_logits(folder, tokens, chunks), expected, atol=1e-4, rtol=0)


def test_a_long_prompt_fed_forward_in_pieces_gives_the_same_logits(
    llama_folder: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, tokens = llama_folder(), [token % 90 for token in range(50)]
    whole = own_logits(folder, tokens, [50])
    monkeypatch.setattr(transformer, "_MOST_ROWS", 16)
    torch.testing.assert_close(own_logits(folder, tokens, [50]), whole, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("fields", [FAMILIES[0], FAMILIES[2], FAMILIES[4], *FAMILIES[6:8], FAMILIES[-1]])
def test_two_hundred_greedy_tokens_equal_those_of_transformers(
    llama_folder: Callable[..., Path], fields: dict[str, Any]
) -> None:
    from transformers import AutoModelForCausalLM

    folder = llama_folder(**fields)
    prompt = list(range(10, 47))
    engine = Engine.load(folder, num_pages=32)
    sequence = engine.generate(prompt, prompt_length=37, sampling=greedy(200))
    finish(engine)
    peer = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    expected = peer.generate(
        torch.tensor([prompt]),
        max_new_tokens=200,
        min_new_tokens=200,
        do_sample=False,
        eos_token_id=None,
        pad_token_id=0,
    )
    assert sequence.tokens == expected[0].tolist()
    assert sequence.finish_reason == "length"


def test_logprobs_are_those_of_the_unmodified_distribution(tiny_llama: Path) -> None:
    engine = Engine.load(tiny_llama, num_pages=32)
    sampling = SamplingParams(60, temperature=1.7, top_k=40, presence_penalty=0.5, stop_at_end=False, seed=5)
    sequence = engine.generate(range(20, 40), prompt_length=20, sampling=sampling)
    finish(engine)
    expected = peer_logits(tiny_llama, sequence.tokens).log_softmax(-1)
    chosen = [float(expected[position - 1, sequence.tokens[position]]) for position in range(20, 80)]
    assert sequence.logprobs == pytest.approx(chosen, abs=1e-4)


def test_scores_are_the_logprobs_of_transformers_and_a_longer_version_costs_its_new_tokens_only(
    tiny_llama: Path,
) -> None:
    tokens = torch.randint(3, 300, (200,), generator=torch.Generator().manual_seed(2)).tolist()
    engine = Engine.load(tiny_llama, num_pages=64, max_step_tokens=64, max_sequences=8)
    expected = peer_logits(tiny_llama, tokens).log_softmax(-1)
    start = 50
    for end in (64, 65, 80, 81, 97, 140, 200):
        before = engine.counters.computed_tokens
        sequence = engine.score(tokens[:end], start=start)
        finish(engine)
        chosen = [float(expected[position - 1, tokens[position]]) for position in range(start, end)]
        assert sequence.logprobs == pytest.approx(chosen, abs=1e-4)
        assert sequence.finish_reason == "scored"
        if start > 50:
            assert engine.counters.computed_tokens - before <= end - start + PAGE - 1
        start = end


def test_scoring_the_same_again_computes_no_more_than_the_step(tiny_llama: Path) -> None:
    engine = Engine.load(tiny_llama, num_pages=64)
    first = engine.score(range(3, 131), start=64)
    finish(engine)
    before = engine.counters.computed_tokens
    second = engine.score(range(3, 131), start=64)
    finish(engine)
    assert engine.counters.computed_tokens - before == 64
    assert second.logprobs == pytest.approx(first.logprobs, abs=1e-5)


@pytest.mark.parametrize(("dtype", "near"), [(torch.bfloat16, 0.25), (torch.float16, 0.03)])
@pytest.mark.parametrize("fields", [FAMILIES[0], FAMILIES[2]])
def test_scores_in_half_precision_stay_near_those_of_transformers_in_float32(
    llama_folder: Callable[..., Path], fields: dict[str, Any], dtype: torch.dtype, near: float
) -> None:
    folder, tokens = llama_folder(**fields), list(range(3, 131))
    engine = Engine.load(folder, num_pages=64, dtype=dtype)
    scored = engine.score(tokens, start=1)
    finish(engine)
    expected = peer_logits(folder, tokens).log_softmax(-1)
    assert scored.logprobs == pytest.approx([float(expected[i - 1, tokens[i]]) for i in range(1, 128)], abs=near)


def test_float16_generates_the_greedy_tokens_of_transformers_in_float16(tiny_llama: Path) -> None:
    """Up to a place where two tokens are nearly as likely: arithmetic in another order decides there."""
    from transformers import AutoModelForCausalLM

    engine = Engine.load(tiny_llama, num_pages=32, dtype=torch.float16)
    sequence = engine.generate(range(10, 47), prompt_length=37, sampling=greedy(60))
    finish(engine)
    peer = AutoModelForCausalLM.from_pretrained(tiny_llama, dtype=torch.float16)
    with torch.inference_mode():
        logits = peer(torch.tensor([sequence.tokens])).logits[0].float()
    for position in range(37, 97):
        chosen = float(logits[position - 1, sequence.tokens[position]])
        assert chosen >= float(logits[position - 1].max()) - 0.02


def test_penalties_count_generated_tokens_and_not_the_prompts(tiny_llama: Path) -> None:
    engine = Engine.load(tiny_llama, num_pages=32)
    sampling = SamplingParams(60, temperature=0.0, presence_penalty=0.9, frequency_penalty=0.7, stop_at_end=False)
    sequence = engine.generate(range(20, 40), prompt_length=20, sampling=sampling)
    finish(engine)
    expected = peer_logits(tiny_llama, sequence.tokens)
    counts = torch.zeros(300)
    for position in range(20, 80):
        penalised = expected[position - 1] - 0.7 * counts - 0.9 * (counts > 0)
        assert sequence.tokens[position] == int(penalised.argmax())
        counts[sequence.tokens[position]] += 1
    assert counts.max() > 1
