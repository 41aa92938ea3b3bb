"""Where the families of Llama-type transformers differ: one transformer, a row of a table each."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Family:
    """query_bias: q, k and v have biases whatever the config says. query_norm: queries and keys are normalised a head.

    windowed: the config's `sliding_window` applies: to "all" layers, to those of `layer_types`, or to none.
    """

    query_bias: bool = False
    query_norm: bool = False
    windowed: str = ""


_FAMILIES = {
    "Llama": Family(),
    "Mistral": Family(windowed="all"),
    "Qwen2": Family(query_bias=True, windowed="some"),
    "Qwen3": Family(query_norm=True, windowed="some"),
}
# What follows a family's name: a language model, or one whose head was replaced to score.
_HEADS = (
    "ForCausalLM",
    "ForTokenClassification",
    "ForSequenceClassification",
    "ForProcessRewardModel",
    "ForRewardModel",
    "ForPrmModel",
)
ARCHITECTURES: Mapping[str, Family] = {name + head: family for name, family in _FAMILIES.items() for head in _HEADS}


def windows(family: Family, fields: Mapping[str, Any], num_layers: int) -> tuple[int | None, ...]:
    """Tokens that each layer looks back on, its own included; None is all of them."""
    window = fields.get("sliding_window")
    if not family.windowed or window is None:
        return (None,) * num_layers
    if family.windowed == "all":
        return (int(window),) * num_layers
    if not fields.get("use_sliding_window", False):
        return (None,) * num_layers
    kinds = fields.get("layer_types")
    if kinds is None:
        first = int(fields.get("max_window_layers", 28))
        kinds = ["sliding_attention" if layer >= first else "full_attention" for layer in range(num_layers)]
    if len(kinds) != num_layers:
        raise ValueError(f"layer_types has {len(kinds)} entries, num_hidden_layers is {num_layers}")
    return tuple(int(window) if kind == "sliding_attention" else None for kind in kinds)
