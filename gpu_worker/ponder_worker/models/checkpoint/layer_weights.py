"""The weights of one layer. Projections that are used together are fused."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypedDict

import torch

from ponder_worker.models.checkpoint.config import ModelConfig
from ponder_worker.models.checkpoint.mixture import Mixture
from ponder_worker.models.checkpoint.tensor_source import TensorSource


@dataclass(frozen=True, slots=True)
class LayerWeights:
    """The weights of one layer. Matrices are `[out, in]`, as in torch's linear; biases are None if the config has none.

    query_key_value: `[(num_heads + 2 * num_kv_heads) * head_dim, hidden]`. gate_up: `[2 * intermediate, hidden]`.
    router: `[num_experts, hidden]`, or None in a dense layer; with a router, gate_up and down are those of all experts,
    `[num_experts, 2 * expert_size, hidden]` and `[num_experts, hidden, expert_size]`.
    attention_norm, mlp_norm: `[hidden]`, of what goes into attention and the feed-forward layer; attention_end_norm,
    mlp_end_norm: of what comes out. query_norm, key_norm: `[head_dim]`, or `[num_heads * head_dim]` and
    `[num_kv_heads * head_dim]` where all heads are normalised together. Norms that the family lacks are None.
    """

    attention_norm: torch.Tensor | None
    query_key_value: torch.Tensor
    query_key_value_bias: torch.Tensor | None
    output: torch.Tensor
    output_bias: torch.Tensor | None
    attention_end_norm: torch.Tensor | None
    mlp_norm: torch.Tensor | None
    router: torch.Tensor | None
    gate_up: torch.Tensor
    gate_up_bias: torch.Tensor | None
    down: torch.Tensor
    down_bias: torch.Tensor | None
    mlp_end_norm: torch.Tensor | None
    query_norm: torch.Tensor | None
    key_norm: torch.Tensor | None


def load_layer(source: TensorSource, config: ModelConfig, index: int) -> LayerWeights:
    """Loads the weights of a layer. Raises MissingTensor or MismatchedTensor with the tensor's name."""
    prefix = f"model.layers.{index}."
    hidden, family = config.hidden_size, config.family
    queries, keys = config.num_heads * config.head_dim, config.num_kv_heads * config.head_dim
    attention = {"q_proj": queries, "k_proj": keys, "v_proj": keys}
    if family.fused:
        attention = {"qkv_proj": queries + 2 * keys}

    def norm(name: str | None, size: int = hidden) -> torch.Tensor | None:
        return None if name is None else source.take_norm(f"{prefix}{name}.weight", size, centred=family.centred)

    def head_norm(name: str, size: int) -> torch.Tensor | None:
        sizes = {"none": 0, "head": config.head_dim, "row": size}
        return norm(f"self_attn.{name}" if sizes[family.query_norm] else None, sizes[family.query_norm])

    module = prefix + "self_attn"
    return LayerWeights(
        attention_norm=norm(family.norms.attention),
        query_key_value=_paired(source.fuse(_named(module, attention), hidden), config, index),
        query_key_value_bias=source.fuse(_named(module, attention, "bias")) if config.query_bias else None,
        output=source.take(f"{module}.o_proj.weight", hidden, queries),
        output_bias=source.take(f"{module}.o_proj.bias", hidden) if config.output_bias else None,
        attention_end_norm=norm(family.norms.attention_end),
        mlp_norm=norm(family.norms.mlp),
        **_feed_forward(source, config, index, prefix),
        mlp_end_norm=norm(family.norms.mlp_end),
        query_norm=head_norm("q_norm", queries),
        key_norm=head_norm("k_norm", keys),
    )


class _FeedForward(TypedDict):
    """The part of `LayerWeights` that is the feed-forward layer."""

    router: torch.Tensor | None
    gate_up: torch.Tensor
    gate_up_bias: torch.Tensor | None
    down: torch.Tensor
    down_bias: torch.Tensor | None


def _feed_forward(source: TensorSource, config: ModelConfig, index: int, prefix: str) -> _FeedForward:
    if config.mixture is not None and config.mixture.layers[index]:
        return _experts(source, config, config.mixture, prefix)
    hidden, inner, module = config.hidden_size, config.intermediate_size, prefix + "mlp"
    parts = {"gate_up_proj": 2 * inner} if config.family.fused else {"gate_proj": inner, "up_proj": inner}
    return {
        "router": None,
        "gate_up": source.fuse(_named(module, parts), hidden),
        "gate_up_bias": source.fuse(_named(module, parts, "bias")) if config.mlp_bias else None,
        "down": source.take(f"{module}.down_proj.weight", hidden, inner),
        "down_bias": source.take(f"{module}.down_proj.bias", hidden) if config.mlp_bias else None,
    }


def _experts(source: TensorSource, config: ModelConfig, mixture: Mixture, prefix: str) -> _FeedForward:
    names, hidden, size = config.family.experts, config.hidden_size, mixture.expert_size
    assert names is not None
    experts = [f"{prefix}{names.module}.experts.{expert}" for expert in range(mixture.num_experts)]
    parts = {names.gate: size, names.up: size}
    return {
        "router": source.take(f"{prefix}{names.module}.gate.weight", mixture.num_experts, hidden),
        "gate_up": torch.stack([source.fuse(_named(expert, parts), hidden) for expert in experts]),
        "gate_up_bias": None,
        "down": torch.stack([source.take(f"{expert}.{names.down}.weight", hidden, size) for expert in experts]),
        "down_bias": None,
    }


def _named(module: str, parts: Mapping[str, int], kind: str = "weight") -> dict[str, int]:
    return {f"{module}.{name}.{kind}": rows for name, rows in parts.items()}


def _paired(query_key_value: torch.Tensor, config: ModelConfig, index: int) -> torch.Tensor:
    """The rows of q, k and v, those of q and k in an order that pairs the two halves of a head.

    A model that rotates the first part of each head alone pairs the halves of that part. Attention is the same for any
    order that queries and keys share.
    """
    half, rotated = config.head_dim // 2, len(config.rotations[index].frequencies)
    if rotated in (0, half):
        return query_key_value
    first, second = torch.arange(rotated), torch.arange(rotated, 2 * rotated)
    alone = torch.arange(2 * rotated, config.head_dim).view(2, -1)
    order = torch.cat([first, alone[0], second, alone[1]])
    num_rotated = config.num_heads + config.num_kv_heads
    heads = query_key_value.view(-1, config.head_dim, config.hidden_size)
    return torch.cat([heads[:num_rotated, order], heads[num_rotated:]]).view(query_key_value.shape)
