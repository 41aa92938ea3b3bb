"""GGUF files made of model folders, as llama.cpp's converter would, and of vocabularies."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from gguf import GGMLQuantizationType, GGUFWriter
from gguf.constants import GGML_QUANT_SIZES
from gguf.quants import quantize
from safetensors.torch import load_file

MODULES = {
    "model.embed_tokens": "token_embd",
    "model.norm": "output_norm",
    "lm_head": "output",
    "input_layernorm": "attn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "self_attn.q_norm": "attn_q_norm",
    "self_attn.k_norm": "attn_k_norm",
    "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}
Kind = GGMLQuantizationType


def write_gguf(
    folder: Path,
    path: Path,
    kind: Kind = Kind.F32,
    *,
    architecture: str = "llama",
    omit: Iterable[str] = (),
    vocabulary: dict[str, Any] | None = None,
    extra: dict[str, np.ndarray[Any, Any]] | None = None,
    **metadata: Any,
) -> Path:
    """Writes a model folder as one file. Matrices are quantised as `kind`.

    omit: names of tensors and metadata to leave out. extra: more tensors. metadata: in place of what the folder says,
    `__` standing for a dot; a key with `arch__` in front belongs to the architecture.
    """
    config = json.loads((folder / "config.json").read_text())
    fields = metadata_of(config) | {"chat_template": (folder / "chat_template.jinja").read_text()}
    fields |= {name.replace("__", "."): value for name, value in metadata.items()}
    tokens = vocabulary or byte_level_vocabulary(folder)
    writer = GGUFWriter(path, architecture)
    for name, value in (fields | tokens).items():
        key = _key(name, architecture)
        if key not in omit:
            _add(writer, key, value)
    heads = {"attn_q": config["num_attention_heads"], "attn_k": config["num_key_value_heads"]}
    for name, tensor in load_file(folder / "model.safetensors").items():
        stored, module = gguf_name(name)
        if architecture == "llama" and module in heads:
            tensor = permuted(tensor, heads[module])
        if stored not in omit:
            _add_tensor(writer, stored, tensor, kind if tensor.ndim > 1 else Kind.F32)
    for name, array in (extra or {}).items():
        writer.add_tensor(name, array)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def metadata_of(config: dict[str, Any]) -> dict[str, Any]:
    head_dim = config.get("head_dim") or config["hidden_size"] // config["num_attention_heads"]
    return {
        "arch.block_count": config["num_hidden_layers"],
        "arch.context_length": config["max_position_embeddings"],
        "arch.embedding_length": config["hidden_size"],
        "arch.feed_forward_length": config["intermediate_size"],
        "arch.attention.head_count": config["num_attention_heads"],
        "arch.attention.head_count_kv": config["num_key_value_heads"],
        "arch.attention.key_length": head_dim,
        "arch.attention.value_length": head_dim,
        "arch.rope.dimension_count": head_dim,
        "arch.rope.freq_base": float(config["rope_parameters"]["rope_theta"]),
        "arch.attention.layer_norm_rms_epsilon": float(config["rms_norm_eps"]),
    }


def byte_level_vocabulary(folder: Path) -> dict[str, Any]:
    model = json.loads((folder / "tokenizer.json").read_text())["model"]
    tokens = sorted(model["vocab"], key=model["vocab"].get)
    size = json.loads((folder / "config.json").read_text())["vocab_size"]
    tokens += [f"[PAD{index}]" for index in range(len(tokens), size)]
    return {
        "model": "gpt2",
        "pre": "gpt-2",
        "tokens": tokens,
        "token_type": [3 if text in ("<pad>", "<s>", "</s>") else 1 for text in tokens],
        "merges": [" ".join(pair) for pair in model["merges"]],
        "bos_token_id": 1,
        "eos_token_id": 2,
    }


def gguf_name(name: str) -> tuple[str, str]:
    """The name of a tensor in the file, and that of its module there."""
    parts = name.split(".")
    kind = parts[-1]
    if parts[1] == "layers":
        module = MODULES[".".join(parts[3:-1])]
        return f"blk.{parts[2]}.{module}.{kind}", module
    module = MODULES[".".join(parts[:-1])]
    return f"{module}.{kind}", module


def permuted(weight: torch.Tensor, heads: int) -> torch.Tensor:
    """As `LlamaModel.permute` in llama.cpp's convert_hf_to_gguf.py."""
    rows = weight.reshape(heads, 2, weight.shape[0] // heads // 2, *weight.shape[1:])
    return rows.swapaxes(1, 2).reshape(weight.shape)


def random_blocks(shape: tuple[int, int], kind: Kind) -> np.ndarray[Any, Any]:
    """Random numbers of a quantisation that the package cannot write, with small scales."""
    per_block, block_bytes = GGML_QUANT_SIZES[kind]
    generator = np.random.default_rng(0)
    num_blocks = shape[0] * shape[1] // per_block
    blocks = generator.integers(0, 256, (num_blocks, block_bytes), dtype=np.uint8)
    scales = np.full((num_blocks, 1), 0.001, np.float16).view(np.uint8)
    if kind is Kind.Q6_K:
        blocks[:, -2:] = scales
    else:
        blocks[:, 0:2] = blocks[:, 2:4] = scales
    return blocks.reshape(shape[0], -1)


def _add_tensor(writer: GGUFWriter, name: str, tensor: torch.Tensor, kind: Kind) -> None:
    values = tensor.float().numpy()
    if kind in (Kind.Q4_K, Kind.Q5_K, Kind.Q6_K):
        writer.add_tensor(name, random_blocks(values.shape, kind), raw_dtype=kind)
    else:
        writer.add_tensor(name, quantize(values, kind), raw_dtype=kind)


def _key(name: str, architecture: str) -> str:
    if name.startswith("arch."):
        return name.replace("arch", architecture, 1)
    if name == "chat_template":
        return f"tokenizer.{name}"
    return name if "." in name else f"tokenizer.ggml.{name}"


def _add(writer: GGUFWriter, key: str, value: Any) -> None:
    if isinstance(value, str):
        writer.add_string(key, value)
    elif isinstance(value, bool):
        writer.add_bool(key, value)
    elif isinstance(value, int):
        writer.add_uint32(key, value)
    elif isinstance(value, float):
        writer.add_float32(key, value)
    elif value:
        writer.add_array(key, value)
