"""The models that are measured, in Hugging Face's format: random ones of several sizes, and a real one."""

import json
from pathlib import Path
from typing import NamedTuple

import torch
from pattern import Case
from tokenizers import Tokenizer as Library
from tokenizers import models
from transformers import Qwen2Config, Qwen2ForCausalLM


class Shape(NamedTuple):
    """A model. fields: fields of a random model's config; none if the model is real and somebody has made its folder.

    kv_bytes: the memory that every engine gets for keys and values.
    """

    fields: dict[str, int]
    kv_bytes: int
    cases: tuple[Case, ...]

    @property
    def is_real(self) -> bool:
        return not self.fields

    def save(self, folder: Path) -> Path:
        """Saves a random model of this shape."""
        torch.manual_seed(0)
        config = Qwen2Config(max_position_embeddings=8192, tie_word_embeddings=True, **self.fields)
        Qwen2ForCausalLM(config).to(torch.bfloat16).save_pretrained(folder)
        ids = {str(token): token for token in range(config.vocab_size)}
        Library(models.WordLevel(ids, "0")).save(f"{folder}/tokenizer.json")
        return folder


def vocabulary(folder: Path) -> int:
    """The number of tokens that the model in this folder knows."""
    return int(json.loads((folder / "config.json").read_text())["vocab_size"])


_SMALL = {
    "vocab_size": 512,
    "hidden_size": 192,
    "intermediate_size": 512,
    "num_hidden_layers": 6,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
}
SHAPES = {
    "small": Shape(
        _SMALL,
        1 << 29,
        (
            Case("16 x best of 16, prompt 64", 16, 16, 64, 128),
            Case("16 x best of 16, prompt 512", 16, 16, 512, 128),
            Case("64 prompts of 64", 64, 1, 64, 128),
            Case("8 x 16 beams, 8 rounds of 16", 8, 16, 64, 16, 8),
            Case("the end of a chain of 4096", 1, 1, 3840, 256),
        ),
    ),
    "0.5B": Shape(
        {
            "vocab_size": 32000,
            "hidden_size": 896,
            "intermediate_size": 4864,
            "num_hidden_layers": 24,
            "num_attention_heads": 14,
            "num_key_value_heads": 2,
        },
        1 << 30,
        (
            Case("4 x best of 16, prompt 64", 4, 16, 64, 64),
            Case("4 x best of 16, prompt 512", 4, 16, 512, 64),
            Case("64 prompts of 64", 64, 1, 64, 64),
            Case("4 x 16 beams, 4 rounds of 16", 4, 16, 64, 16, 4),
            Case("the end of a chain of 4096", 1, 1, 3968, 128),
        ),
    ),
    "smollm2": Shape(
        {},
        1 << 30,
        (
            Case("40 samples of one prompt", 1, 40, 64, 64),
            Case("40 prompts", 40, 1, 64, 64),
            Case("256 samples of one prompt", 1, 256, 64, 64),
        ),
    ),
    "small, swept": Shape(
        _SMALL,
        1 << 29,
        (
            *(Case(f"4 x best of {siblings}, prompt 64", 4, siblings, 64, 64) for siblings in (1, 4, 16, 64)),
            *(Case(f"4 x best of 16, prompt {prompt}", 4, 16, prompt, 64) for prompt in (256, 1024, 2048)),
        ),
    ),
}
