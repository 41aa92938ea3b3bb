"""The families of Llama-type transformers: a table of what distinguishes them."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Architecture:
    """The traits of one model family.

    query_bias: q, k and v have biases, whatever the config says. query_norm: each head's queries and keys are
    normalised. windowed: the layers to which the config's `sliding_window` applies: "all" of them, "some" as given by
    `layer_types`, or none.
    """

    query_bias: bool = False
    query_norm: bool = False
    windowed: str = ""


_FAMILIES = {
    "Llama": Architecture(),
    "Mistral": Architecture(windowed="all"),
    "Qwen2": Architecture(query_bias=True, windowed="some"),
    "Qwen3": Architecture(query_norm=True, windowed="some"),
}
# The ends of architecture names: a language model, or one whose head was replaced by a score.
_HEADS = (
    "ForCausalLM",
    "ForTokenClassification",
    "ForSequenceClassification",
    "ForProcessRewardModel",
    "ForRewardModel",
    "ForPrmModel",
)
ARCHITECTURES: Mapping[str, Architecture] = {
    name + head: architecture for name, architecture in _FAMILIES.items() for head in _HEADS
}


def windows(architecture: Architecture, fields: Mapping[str, Any], num_layers: int) -> tuple[int | None, ...]:
    """The number of tokens that each layer looks back on, its own included; None means all of them."""
    window = fields.get("sliding_window")
    if not architecture.windowed or window is None:
        return (None,) * num_layers
    if architecture.windowed == "all":
        return (int(window),) * num_layers
    if not fields.get("use_sliding_window", False):
        return (None,) * num_layers
    kinds = fields.get("layer_types")
    if kinds is None:
        first = int(fields.get("max_window_layers", 28))
        kinds = ["sliding_attention" if layer >= first else "full_attention" for layer in range(num_layers)]
    if len(kinds) != num_layers:
        raise ValueError(f"layer_types has {len(kinds)} entries, but num_hidden_layers is {num_layers}")
    return tuple(int(window) if kind == "sliding_attention" else None for kind in kinds)
