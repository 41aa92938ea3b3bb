"""A GGUF file as a folder in Hugging Face's format, so that everything that reads such folders reads it too."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from ponder_worker.models.checkpoint.folder import GGUF_WEIGHTS, Fields
from ponder_worker.models.model_error import UnsupportedModel

if TYPE_CHECKING:  # imported where it is needed, because a bare GPU machine may lack the package gguf
    from ponder_worker.models.checkpoint.gguf.gguf_file import GgufFile

_ARCHITECTURES = {"llama": "LlamaForCausalLM", "qwen2": "Qwen2ForCausalLM", "qwen3": "Qwen3ForCausalLM"}
"""Mistral's files are `llama` files."""
_DTYPES = {"F32": "float32", "F16": "float16"}
_ROPE_FACTORS = "rope_freqs.weight"
_ROPE_UNREAD = ("attn_factor", "yarn_log_multiplier", "yarn_ext_factor", "yarn_attn_factor")
_SAMPLING = {"temp": "temperature", "top_p": "top_p", "top_k": "top_k"}


@contextmanager
def model_folder(model: str | Path) -> Iterator[Path]:
    """The folder of a model: itself, or one made of a GGUF file, which is gone afterwards.

    Such a folder has a config, a tokenizer and a chat template made of the file's metadata, and a link to the file for
    the weights. Raises a ModelError that names the file and what is wrong with it.
    """
    path = Path(model)
    if not path.is_file():
        yield path
        return
    with TemporaryDirectory(prefix="ponder-gguf-") as name:
        folder = Path(name) / path.name  # logs name it
        folder.mkdir()
        _write(path, folder)
        yield folder


def _write(path: Path, folder: Path) -> None:
    from ponder_worker.models.checkpoint.gguf.gguf_file import GgufFile
    from ponder_worker.models.checkpoint.gguf.gguf_tokenizer import GgufTokenizer

    file = GgufFile.open(path)
    config = _config(file)
    tokenizer = GgufTokenizer(file)
    given = {theirs: file.metadata.get(f"general.sampling.{ours}") for ours, theirs in _SAMPLING.items()}
    sampling = {name: value for name, value in given.items() if value is not None}
    documents = {
        "config.json": config,
        "generation_config.json": {"eos_token_id": tokenizer.eos_token_ids(), **sampling},
        "tokenizer_config.json": tokenizer.special_texts(),
    }
    for name, document in documents.items():
        (folder / name).write_text(json.dumps(document), encoding="utf-8")
    tokenizer.tokenizer.save(str(folder / "tokenizer.json"))
    template = file.field("tokenizer.chat_template", str, "")
    if template:
        (folder / "chat_template.jinja").write_text(template, encoding="utf-8")
    (folder / GGUF_WEIGHTS).symlink_to(path.resolve())


def _config(file: GgufFile) -> Fields:
    """The fields of config.json. Raises a ModelError that names the metadata or the tensor."""
    architecture = file.field("general.architecture", str)
    if architecture not in _ARCHITECTURES:
        raise UnsupportedModel(
            f"{file.path}: GGUF files of the architecture {architecture!r} are not read; read: "
            f"{', '.join(_ARCHITECTURES)} (Mistral's are llama)"
        )
    if file.metadata.get(f"{architecture}.expert_count"):
        raise UnsupportedModel(f"{file.path}: GGUF files of mixtures of experts are not read")
    fields = _sizes(file, architecture)
    window = file.metadata.get(f"{architecture}.attention.sliding_window")
    is_windowed = architecture == "llama" and bool(window)
    fields |= {
        "architectures": ["MistralForCausalLM" if is_windowed else _ARCHITECTURES[architecture]],
        "sliding_window": window if is_windowed else None,
        "attention_bias": architecture == "qwen2" or "blk.0.attn_q.bias" in file.tensors,
        "mlp_bias": "blk.0.ffn_gate.bias" in file.tensors,
        "tie_word_embeddings": "output.weight" not in file.tensors,
    }
    file.check_tensors(_shapes(fields, architecture), may_have={_ROPE_FACTORS: (fields["head_dim"] // 2,)})
    fields["dtype"] = _DTYPES.get(file.tensors["blk.0.attn_q.weight"].kind.name, "bfloat16")
    fields["rope_parameters"] = _rope(file, architecture, fields["max_position_embeddings"])
    return fields


def _sizes(file: GgufFile, architecture: str) -> Fields:
    def size(name: str, default: int | None = None) -> int:
        return file.size(f"{architecture}.{name}", default)

    hidden, heads = size("embedding_length"), size("attention.head_count")
    head_dim = size("attention.key_length", hidden // heads or 1)
    for name in ("attention.value_length", "rope.dimension_count"):
        if size(name, head_dim) != head_dim:
            raise UnsupportedModel(
                f"{file.path}: {architecture}.{name} is {size(name)}, but heads have {head_dim} dimensions: "
                "heads of several sizes, or rotated in part, are not read"
            )
    return {
        "vocab_size": len(file.field("tokenizer.ggml.tokens", list)),
        "hidden_size": hidden,
        "intermediate_size": size("feed_forward_length"),
        "num_hidden_layers": size("block_count"),
        "num_attention_heads": heads,
        "num_key_value_heads": size("attention.head_count_kv", heads),
        "head_dim": head_dim,
        "max_position_embeddings": size("context_length"),
        "rms_norm_eps": file.field(f"{architecture}.attention.layer_norm_rms_epsilon", float),
    }


def _shapes(fields: Fields, architecture: str) -> Iterator[tuple[str, tuple[int, ...]]]:
    """The tensors that the fields ask for."""
    hidden, inner, head_dim = fields["hidden_size"], fields["intermediate_size"], fields["head_dim"]
    queries, keys = fields["num_attention_heads"] * head_dim, fields["num_key_value_heads"] * head_dim
    attention = {"attn_q": (queries, hidden), "attn_k": (keys, hidden), "attn_v": (keys, hidden)}
    output = {"attn_output": (hidden, queries)}
    mlp = {"ffn_gate": (inner, hidden), "ffn_up": (inner, hidden), "ffn_down": (hidden, inner)}
    biased = attention if architecture == "qwen2" else attention | output
    biased = (biased if fields["attention_bias"] else {}) | (mlp if fields["mlp_bias"] else {})
    layer: dict[str, tuple[int, ...]] = {"attn_norm.weight": (hidden,), "ffn_norm.weight": (hidden,)}
    layer |= {f"{name}.weight": shape for name, shape in (attention | output | mlp).items()}
    layer |= {f"{name}.bias": shape[:1] for name, shape in biased.items()}
    if architecture == "qwen3":
        layer |= {"attn_q_norm.weight": (head_dim,), "attn_k_norm.weight": (head_dim,)}
    yield "token_embd.weight", (fields["vocab_size"], hidden)
    yield "output_norm.weight", (hidden,)
    if not fields["tie_word_embeddings"]:
        yield "output.weight", (fields["vocab_size"], hidden)
    for index in range(fields["num_hidden_layers"]):
        yield from ((f"blk.{index}.{name}", shape) for name, shape in layer.items())


def _rope(file: GgufFile, architecture: str, context_tokens: int) -> Fields:
    """The rope parameters in Hugging Face's words. Raises UnsupportedModel for a kind that is not read."""
    prefix = f"{architecture}.rope"
    kind = file.field(f"{prefix}.scaling.type", str, "none")
    factor = file.field(f"{prefix}.scaling.factor", float, file.field(f"{prefix}.scale_linear", float, 1.0))
    rope: Fields = {"rope_theta": file.field(f"{prefix}.freq_base", float, 10000.0)}
    unread = [name for name in _ROPE_UNREAD if f"{prefix}.scaling.{name}" in file.metadata]
    if kind not in ("none", "linear", "yarn") or (unread and kind == "yarn"):
        what = f"{unread[0]} of {kind!r}" if unread else f"type {kind!r}"
        raise UnsupportedModel(f"{file.path}: {prefix}.scaling.{what} is not read; read: 'none', 'linear', 'yarn'")
    if _ROPE_FACTORS in file.tensors:
        if kind != "none" or factor != 1.0:
            raise UnsupportedModel(f"{file.path}: {_ROPE_FACTORS} together with {prefix}.scaling is not read")
        return rope | _factors(file, context_tokens)
    if kind == "yarn":
        betas = {
            name: file.field(f"{prefix}.scaling.yarn_{name}", float, default)
            for name, default in (("beta_fast", 32.0), ("beta_slow", 1.0))
        }
        original = file.size(f"{prefix}.scaling.original_context_length", context_tokens)
        return rope | betas | {"rope_type": kind, "factor": factor, "original_max_position_embeddings": original}
    return rope | ({"rope_type": "default"} if factor == 1.0 else {"rope_type": "linear", "factor": factor})


def _factors(file: GgufFile, context_tokens: int) -> Fields:
    """Llama 3's scaling, which the file has already worked out for every pair of dimensions."""
    from ponder_worker.models.checkpoint.gguf.gguf_tensors import dequantise

    factors = dequantise(file, file.tensors[_ROPE_FACTORS]).tolist()
    return {
        "rope_type": "longrope",
        "short_factor": factors,
        "long_factor": factors,
        "attention_factor": 1.0,
        "original_max_position_embeddings": context_tokens,
    }
