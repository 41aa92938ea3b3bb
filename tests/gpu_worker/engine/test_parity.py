"""The engine against transformers, which computes the same model without pages."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from ponder_worker.engine import Engine, SamplingParams
from ponder_worker.models import layer
from ponder_worker.models.transformer import Transformer

from ..conftest import save_tokenizer

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
    *(
        {"rope_parameters": {"rope_theta": 10000.0} | rope}
        for rope in (
            {"rope_type": "linear", "factor": 4.0},
            {"rope_type": "dynamic", "factor": 4.0},
            {"rope_type": "yarn", "factor": 8.0, "original_max_position_embeddings": 64},
            {
                "rope_type": "longrope",
                "short_factor": [1.0 + 0.2 * pair for pair in range(8)],
                "long_factor": [9.0] * 8,
                "original_max_position_embeddings": 128,
            },
            {"rope_type": "proportional", "partial_rotary_factor": 0.5},
        )
    ),
    {"family": "Mistral", "sliding_window": None},
    {"family": "Mistral", "sliding_window": 33},
]
WIDE = {"hidden_size": 128}  # heads of 32, which C takes
LONGROPE: dict[str, Any] = {"rope_type": "longrope", "short_factor": [1.0 + 0.2 * pair for pair in range(12)]}
CAPS, EAGER = {"attn_logit_softcapping": 3.0, "final_logit_softcapping": 4.0}, {"attn_implementation": "eager"}
NEWER_FAMILIES: list[dict[str, Any]] = [
    {"family": "Phi3", "pad_token_id": 0, **WIDE},
    {"family": "Phi3", "pad_token_id": 0, "sliding_window": 33, "tie_word_embeddings": False},
    {
        **{"family": "Phi3", "pad_token_id": 0, "original_max_position_embeddings": 256, **WIDE},
        "rope_parameters": {"partial_rotary_factor": 0.75, "long_factor": [9.0] * 12, **LONGROPE},
    },
    {"family": "Olmo2", **WIDE},
    {"family": "Olmo2", "num_key_value_heads": 1, "tie_word_embeddings": False, "attention_bias": True},
    {"family": "SmolLM3", "num_hidden_layers": 3, "no_rope_layers": [0, 1, 0], "pad_token_id": 0, **WIDE},
    {"family": "SmolLM3", "num_hidden_layers": 5, "pad_token_id": 0, "attention_bias": True, "mlp_bias": True},
    {
        **{"family": "SmolLM3", "num_hidden_layers": 3, "no_rope_layers": [1, 0, 1], "pad_token_id": 0},
        **{"use_sliding_window": True, "sliding_window": 33},
    },
    {
        **{"family": "Granite", "embedding_multiplier": 3.0, "logits_scaling": 2.0, "residual_multiplier": 0.4},
        **{"attention_multiplier": 0.13, **WIDE},
    },
    {"family": "Granite", "attention_bias": True, "mlp_bias": True, "residual_multiplier": 0.22},
    {"family": "Mixtral", "num_local_experts": 6, **WIDE},
    {"family": "Mixtral", "num_local_experts": 4, "num_experts_per_tok": 3, "sliding_window": 33},
    {
        **{"family": "Qwen3Moe", "num_experts": 7, "num_experts_per_tok": 3, "moe_intermediate_size": 48},
        **{"norm_topk_prob": True, "head_dim": 32, "attention_bias": True},
    },
    {
        **{"family": "Qwen3Moe", "num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 40},
        **{"num_hidden_layers": 4, "decoder_sparse_step": 2, "mlp_only_layers": [3], "head_dim": 16},
        **{"use_sliding_window": True, "sliding_window": 33},
    },
    {"family": "Olmoe", "num_experts": 8, "num_experts_per_tok": 3, "pad_token_id": 0, **WIDE},
    {"family": "Olmoe", "num_experts": 4, "num_experts_per_tok": 2, "norm_topk_prob": True, "clip_qkv": 0.7},
    {"family": "Gemma2", "head_dim": 32, "query_pre_attn_scalar": 20, "sliding_window": 33, **CAPS, **EAGER},
    {"family": "Gemma2", "head_dim": 32, "attn_logit_softcapping": None, "final_logit_softcapping": None, **EAGER},
    {"family": "Gemma3", "head_dim": 32, "query_pre_attn_scalar": 20, "sliding_window": 33, "num_hidden_layers": 7},
    {
        **{"family": "Gemma3", "head_dim": 16, "sliding_window": 20, "final_logit_softcapping": 4.0},
        **{"layer_types": ["full_attention", "sliding_attention"], "attention_bias": True},
        "rope_parameters": {
            "full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 1e5},
            "sliding_attention": {"rope_type": "default", "rope_theta": 500.0},
        },
    },
]


def name_of(fields: dict[str, Any]) -> str:
    return str(fields.get("family", "Llama"))


def peer_logits(folder: Path, tokens: list[int], dtype: torch.dtype = torch.float32) -> torch.Tensor:
    from transformers import AutoModelForCausalLM

    with torch.inference_mode():
        logits: torch.Tensor = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype)(torch.tensor([tokens])).logits
    return logits[0].float()


def own_logits(folder: Path, tokens: list[int], chunks: list[int], dtype: torch.dtype = torch.float32) -> torch.Tensor:
    """Logits at every position, the tokens computed in chunks of these lengths."""
    model = Transformer.load(folder, dtype=dtype, device=torch.device("cpu"))
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


@pytest.mark.parametrize("fields", FAMILIES + NEWER_FAMILIES, ids=name_of)
def test_logits_equal_those_of_transformers_at_every_position(
    llama_folder: Callable[..., Path], fields: dict[str, Any]
) -> None:
    folder = llama_folder(**fields)
    tokens = torch.randint(3, 300, (100,), generator=torch.Generator().manual_seed(1)).tolist()
    expected = peer_logits(folder, tokens)
    for chunks in ([100], [1] * 100, [15, 1, 1, 16, 31, 33, 1, 2]):
        torch.testing.assert_close(own_logits(folder, tokens, chunks), expected, atol=2e-4, rtol=0)


@pytest.mark.parametrize("fields", NEWER_FAMILIES, ids=name_of)
def test_logits_in_bfloat16_are_as_exact_as_those_of_transformers(
    llama_folder: Callable[..., Path], fields: dict[str, Any]
) -> None:
    folder = llama_folder(**fields)
    tokens = torch.randint(3, 300, (100,), generator=torch.Generator().manual_seed(1)).tolist()
    expected = peer_logits(folder, tokens)
    allowed = 1.2 * float((peer_logits(folder, tokens, torch.bfloat16) - expected).abs().mean())
    for chunks in ([100], [1] * 100, [15, 1, 1, 16, 31, 33, 1, 2]):
        found = own_logits(folder, tokens, chunks, torch.bfloat16)
        assert float((found - expected).abs().mean()) < allowed


@pytest.fixture(scope="module")
def seeing_gemma(llama_folder: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Gemma-3 model that takes images too."""
    import transformers

    text = transformers.AutoConfig.from_pretrained(llama_folder(**NEWER_FAMILIES[-2]))
    vision = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = transformers.Gemma3Config(
        text_config=text, vision_config=vision | {"image_size": 28, "patch_size": 14}, mm_tokens_per_image=4
    )
    folder = tmp_path_factory.mktemp("gemma")
    torch.manual_seed(0)
    model = transformers.Gemma3ForConditionalGeneration(config)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, 0.0, 0.15)
    model.save_pretrained(folder)
    save_tokenizer(folder)
    return folder


def test_the_language_model_of_a_gemma_3_that_sees_is_read_for_text(seeing_gemma: Path) -> None:
    import transformers

    tokens = torch.randint(3, 255, (60,), generator=torch.Generator().manual_seed(1)).tolist()
    peer = transformers.Gemma3ForConditionalGeneration.from_pretrained(seeing_gemma, dtype=torch.float32)
    with torch.inference_mode():
        expected = peer(torch.tensor([tokens])).logits[0]
    torch.testing.assert_close(own_logits(seeing_gemma, tokens, [40, 1, 19]), expected, atol=1e-4, rtol=0)


@pytest.mark.parametrize("fields", [each for each in NEWER_FAMILIES if each["family"].startswith("Gemma")], ids=name_of)
def test_samples_of_one_prompt_are_those_of_a_model_that_shares_nothing(
    llama_folder: Callable[..., Path], fields: dict[str, Any]
) -> None:
    """Siblings with a soft cap, or with a window, are not read together by torch or C."""
    folder, prompt = llama_folder(**fields), list(range(10, 110))
    engine = Engine.load(folder, num_pages=64)
    sampled = [
        engine.generate(prompt, prompt_length=100, sampling=SamplingParams(20, stop_at_end=False, seed=seed))
        for seed in range(6)
    ]
    finish(engine)
    for sequence in sampled:
        expected = peer_logits(folder, sequence.tokens).log_softmax(-1)
        chosen = [float(expected[position - 1, sequence.tokens[position]]) for position in range(100, 120)]
        assert sequence.logprobs == pytest.approx(chosen, abs=2e-4)


def test_a_long_prompt_fed_forward_in_pieces_gives_the_same_logits(
    llama_folder: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, tokens = llama_folder(), [token % 90 for token in range(50)]
    whole = own_logits(folder, tokens, [50])
    monkeypatch.setattr(layer, "_MOST_ROWS", 16)
    torch.testing.assert_close(own_logits(folder, tokens, [50]), whole, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    "fields", [FAMILIES[0], FAMILIES[2], FAMILIES[4], *FAMILIES[6:8], FAMILIES[-1], *NEWER_FAMILIES], ids=name_of
)
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
