"""Real processes on a real Postgres and Redis, and models that take long enough to be caught in the middle."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import redis
import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from ponder.embedded.postgres import EmbeddedPostgres
from ponder.embedded.redis import EmbeddedRedis

# pytest's importlib mode puts no folder on the path, and these tests share a module.
sys.path.insert(0, str(Path(__file__).parent))
if TYPE_CHECKING:
    from fleet import Fleet


@pytest.fixture
def fleet(
    postgres: EmbeddedPostgres,
    redis_server: EmbeddedRedis,
    database_url: str,
    slow_model: Path,
    reward_model: Path,
    tmp_path: Path,
) -> Iterator[Fleet]:
    """Whatever it starts is gone after the test."""
    from fleet import Fleet

    redis.Redis.from_url(redis_server.url).flushall()
    with Fleet(
        postgres, redis_server, database_url, model=slow_model, reward_model=reward_model, folder=tmp_path
    ) as fleet:
        yield fleet


@pytest.fixture(scope="session")
def slow_model(make_llama: Callable[..., Path]) -> Path:
    """Never ends by itself: a sample is as long as it may be. Deep, so that a test can act while one grows."""
    return make_llama("slow", layers=12)


@pytest.fixture(scope="session")
def reward_model(make_llama: Callable[..., Path]) -> Path:
    folder = make_llama("reward")
    (folder / "reward.json").write_text('{"kind": "likelihood", "aggregate": "mean"}')
    return folder


@pytest.fixture(scope="session")
def make_llama(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """A random model in Hugging Face's format. No end token is among what it may sample."""

    def make(name: str, *, hidden: int = 128, layers: int = 4, context_length: int = 4096) -> Path:
        folder = tmp_path_factory.mktemp(name)
        vocabulary = _save_tokenizer(folder)
        config = {
            "architectures": ["LlamaForCausalLM"],
            "model_type": "llama",
            "vocab_size": vocabulary,
            "hidden_size": hidden,
            "intermediate_size": 2 * hidden,
            "num_hidden_layers": layers,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "max_position_embeddings": context_length,
            "tie_word_embeddings": True,
        }
        (folder / "config.json").write_text(json.dumps(config))
        save_file(_weights(vocabulary, hidden, layers), folder / "model.safetensors", metadata={"format": "pt"})
        return folder

    return make


def _save_tokenizer(folder: Path) -> int:
    """One id a byte. Returns the size of the vocabulary."""
    vocabulary = {piece: index for index, piece in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.save(str(folder / "tokenizer.json"))
    template = "{% for message in messages %}{{ message.content }}\n{% endfor %}"
    (folder / "tokenizer_config.json").write_text(json.dumps({"chat_template": template}))
    return len(vocabulary)


def _weights(vocabulary: int, hidden: int, layers: int) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)

    def random(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator) * 0.05

    weights = {"model.embed_tokens.weight": random(vocabulary, hidden), "model.norm.weight": torch.ones(hidden)}
    for layer in range(layers):
        prefix = f"model.layers.{layer}."
        for room, name, rows, columns in (
            ("self_attn", "q_proj", hidden, hidden),
            ("self_attn", "k_proj", hidden // 2, hidden),
            ("self_attn", "v_proj", hidden // 2, hidden),
            ("self_attn", "o_proj", hidden, hidden),
            ("mlp", "gate_proj", 2 * hidden, hidden),
            ("mlp", "up_proj", 2 * hidden, hidden),
            ("mlp", "down_proj", hidden, 2 * hidden),
        ):
            weights[f"{prefix}{room}.{name}.weight"] = random(rows, columns)
        for norm in ("input_layernorm", "post_attention_layernorm"):
            weights[f"{prefix}{norm}.weight"] = torch.ones(hidden)
    return weights
