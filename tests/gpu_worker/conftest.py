"""Small random models in Hugging Face's format, made by transformers, which is what ours are compared with."""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from ponder_worker.engine_process.loading.engine_options import EngineOptions
from ponder_worker.engine_process.loading.engines import Engines, load

from .process import Process

VOCABULARY = 300
torch.set_num_threads(1)  # of models this small, a second thread costs more than it computes
TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}{{ message.role }}: {{ message.content }}\n{% endfor %}"
    "{% if add_generation_prompt %}assistant: {% endif %}"
)


def save_tokenizer(folder: Path) -> None:
    """Byte-level: ids 0 to 2 are special, the 256 bytes follow, then some longer pieces."""
    pieces = ["<pad>", "<s>", "</s>", *sorted(pre_tokenizers.ByteLevel.alphabet()), "ab", "Ċa"]
    tokenizer = Tokenizer(
        models.BPE(vocab={piece: i for i, piece in enumerate(pieces)}, merges=[("a", "b"), ("Ċ", "a")])
    )
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(["<pad>", "<s>", "</s>"])
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(
        '{"bos_token": "<s>", "eos_token": {"__type": "AddedToken", "content": "</s>"}}'
    )
    (folder / "chat_template.jinja").write_text(TEMPLATE)


@pytest.fixture(scope="session")
def llama_folder(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Makes a model folder; fields of its config may be given. The same fields give the same folder."""
    made: dict[str, Path] = {}

    def make(*, max_shard_size: str = "50GB", family: str = "Llama", head: str = "ForCausalLM", **fields: Any) -> Path:
        import transformers

        name = repr((max_shard_size, family, head, sorted(fields.items(), key=str)))
        if name not in made:
            sizes = {
                "vocab_size": VOCABULARY,
                "hidden_size": 64,
                "intermediate_size": 96,
                "num_hidden_layers": 2,
                "num_attention_heads": 4,
                "num_key_value_heads": 2,
                "max_position_embeddings": 512,
                "tie_word_embeddings": True,
                "bos_token_id": 1,
                "eos_token_id": 2,
                "initializer_range": 0.15,
            }
            torch.manual_seed(0)
            config_class = "Gemma3TextConfig" if family == "Gemma3" else f"{family}Config"
            config = getattr(transformers, config_class)(**(sizes | fields))
            model = getattr(transformers, f"{family}{head}")(config)
            for parameter in model.parameters():  # biases and norms are not random when new
                torch.nn.init.normal_(parameter, 1.0 if parameter.ndim == 1 else 0.0, 0.15)
            made[name] = tmp_path_factory.mktemp("llama")
            model.save_pretrained(made[name], max_shard_size=max_shard_size)
            save_tokenizer(made[name])
        return made[name]

    return make


@pytest.fixture(scope="session")
def tiny_llama(llama_folder: Callable[..., Path]) -> Path:
    return llama_folder()


@pytest.fixture(scope="session")
def reward_llama(llama_folder: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("reward") / "model"
    shutil.copytree(llama_folder(), folder)
    (folder / "reward.json").write_text('{"kind": "likelihood"}')
    return folder


@pytest.fixture(scope="session")
def engine_options(tiny_llama: Path, reward_llama: Path) -> dict[str, Any]:
    return {"model": str(tiny_llama), "reward_model": str(reward_llama), "num_threads": 1, "kv_bytes": 1 << 22}


@pytest.fixture(scope="module")
def shared_process(engine_options: dict[str, Any]) -> Iterator[Process]:
    process = Process(**engine_options)
    yield process
    process.close()


@pytest.fixture(scope="module")
def engines(engine_options: dict[str, Any]) -> Engines:
    """A generator, and a reward model that knows its tokens."""
    return load(EngineOptions(device="cpu", **engine_options))
