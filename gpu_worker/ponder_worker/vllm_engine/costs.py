"""The cost of a token, read from a checkpoint's files: vLLM keeps no such numbers."""

import json
import math
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ponder_worker.models.checkpoint.folder import read_json, weight_files

_PACKED = {"I32": 32, "U8": 8, "I8": 8}
"""The integer types that quantised weights are packed in, and their bits."""


def flops_per_token(folder: str | Path) -> int:
    """Returns the floating-point operations of the matrix products for one token, its logits included.

    Of a mixture's experts only those that a token is sent to count. Packed weights count one by one.
    """
    config = _text_config(read_json(Path(folder), "config.json"))
    share = _expert_share(config)
    tied = bool(config.get("tie_word_embeddings", False))
    total = 0.0
    for file in weight_files(Path(folder)):
        for name, tensor in _header(file).items():
            if len(tensor["shape"]) < 2 or (_is_embedding(name) and not tied) or _is_scale(name):
                continue
            total += _num_weights(tensor, config) * (share if ".experts." in name else 1.0)
    return max(1, round(2 * total))


def kv_bytes_per_token(kv_cache_config: Any, parallel_size: int) -> list[tuple[float, int | None]]:
    """Returns for each group of layers the bytes of one token's keys and values, and the window it looks back on.

    parallel_size: executors that hold a part of each layer. Layers with a state of fixed size have no bytes a token.
    """
    groups = []
    for group in kv_cache_config.kv_cache_groups:
        spec = group.kv_cache_spec
        if "Mamba" in type(spec).__name__:
            continue
        size = spec.page_size_bytes / spec.block_size * len(group.layer_names) * parallel_size
        groups.append((size, getattr(spec, "sliding_window", None)))
    return groups


def _text_config(config: Mapping[str, Any]) -> Mapping[str, Any]:
    text = config.get("text_config")
    return {**config, **text} if isinstance(text, dict) else config


def _expert_share(config: Mapping[str, Any]) -> float:
    chosen = config.get("num_experts_per_tok")
    experts = next(
        (config[key] for key in ("num_experts", "n_routed_experts", "num_local_experts") if config.get(key)), 0
    )
    return chosen / experts if chosen and experts else 1.0


def _is_embedding(name: str) -> bool:
    return "embed_tokens" in name or name.endswith("wte.weight")


def _is_scale(name: str) -> bool:
    return name.endswith(("scales", "scale", "qzeros", "zero_point", "g_idx", "scale_inv", "weight_shape"))


def _num_weights(tensor: Mapping[str, Any], config: Mapping[str, Any]) -> float:
    elements: int = math.prod(tensor["shape"])
    packed = _PACKED.get(tensor["dtype"])
    return (
        float(elements)
        if packed is None
        else elements * packed / _bits(config.get("quantization_config") or {}, packed)
    )


def _bits(quantization: Mapping[str, Any], default: int) -> int:
    """Returns the bits of a packed weight: GPTQ's and AWQ's `bits`, or compressed-tensors' `num_bits`."""
    found = quantization.get("bits") or quantization.get("w_bit")
    for group in (quantization.get("config_groups") or {}).values():
        found = found or (group.get("weights") or {}).get("num_bits")
    return int(found or default)


def _header(file: Path) -> Mapping[str, Any]:
    """Returns the entries of a safetensors file, without its weights."""
    with file.open("rb") as opened:
        (length,) = struct.unpack("<Q", opened.read(8))
        header: Mapping[str, Any] = json.loads(opened.read(length))
    return {name: tensor for name, tensor in header.items() if name != "__metadata__"}
