"""The table of model families: how each of them differs from Llama.

A family is supported if it has a row here; `tests/gpu_worker/engine/test_parity.py` compares each with transformers.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from ponder_worker.models.checkpoint.folder import Fields
from ponder_worker.models.checkpoint.mixture import ExpertNames
from ponder_worker.models.model_error import UnsupportedModel

QueryNorm = Literal["none", "head", "row"]
"""The norm of queries and keys: none, of each head by itself, or of all heads of a token together."""

Activation = Literal["silu", "gelu"]
_ACTIVATIONS: Mapping[str, Activation] = {"silu": "silu", "gelu_pytorch_tanh": "gelu"}
"""By the names of transformers. The exact GELU is not among them."""

Windowed = Literal["none", "all", "flagged", "flagged all", "typed"]
"""The layers to which `sliding_window` applies: none, all, or those that `layer_types` names. Flagged: only with
`use_sliding_window`.
"""


class LayerNorms(NamedTuple):
    """The names of a layer's norms: before and after attention, before and after the feed-forward layer."""

    attention: str | None = None
    attention_end: str | None = None
    mlp: str | None = None
    mlp_end: str | None = None


_BEFORE = LayerNorms(attention="input_layernorm", mlp="post_attention_layernorm")
_AFTER = LayerNorms(attention_end="post_attention_layernorm", mlp_end="post_feedforward_layernorm")
_AROUND = LayerNorms(
    "input_layernorm", "post_attention_layernorm", "pre_feedforward_layernorm", "post_feedforward_layernorm"
)


@dataclass(frozen=True, slots=True)
class Family:
    """The traits of one model family.

    defaults: values of fields that transformers leaves out of config.json. norms: where a layer's norms are. centred:
    norms are multiplied by 1 + weight. query_bias: q, k and v have biases, whatever the config says. query_norm: of
    which kind. windowed: which layers have a sliding window. global_every: where `layer_types` is missing, every so
    many-th layer has none, or as many as `sliding_window_pattern` says. local_rope: layers with a window have a rope of
    their own. fused: the checkpoint holds q, k and v as one matrix, and gates and up-projections as another. unrotated:
    some layers have no rotary positions. rotates_in_part: `partial_rotary_factor` is allowed. rope_type: the meaning of
    every kind of rope but the default; older Phi-3 files call theirs su and yarn. scales: whose multipliers the config
    has. clipped: queries, keys and values are clipped to `clip_qkv`. experts: the names of a sparse mixture, or None.
    normalised: the weights of the chosen experts sum to 1, whatever the config says.
    """

    defaults: Mapping[str, object] = field(default_factory=dict, hash=False)
    norms: LayerNorms = _BEFORE
    centred: bool = False
    query_bias: bool = False
    query_norm: QueryNorm = "none"
    windowed: Windowed = "none"
    global_every: int = 0
    local_rope: bool = False
    fused: bool = False
    unrotated: bool = False
    rotates_in_part: bool = False
    rope_type: str = ""
    scales: Literal["", "granite", "gemma"] = ""
    clipped: bool = False
    experts: ExpertNames | None = None
    normalised: bool = False


@dataclass(frozen=True, slots=True)
class Scales:
    """The numbers that a model multiplies by, and those that limit others. Most families have only the first.

    attention: the factor of q @ k. embedding: the factor of embeddings. residual: the factor of what a layer adds to
    them. logit_divisor: what logits are divided by. clip: the largest magnitude of queries, keys and values before they
    are rotated. attention_cap, logit_cap: the c of c * tanh(score / c), for scores of attention and for logits. A limit
    of 0 is none.
    """

    attention: float
    embedding: float = 1.0
    residual: float = 1.0
    logit_divisor: float = 1.0
    clip: float = 0.0
    attention_cap: float = 0.0
    logit_cap: float = 0.0

    @classmethod
    def of(cls, family: Family, fields: Fields, head_dim: int) -> "Scales":
        """The scales of a config. Raises KeyError, TypeError and ValueError for fields that are missing or wrong."""
        if family.scales == "granite":
            names = ("attention_multiplier", "embedding_multiplier", "residual_multiplier", "logits_scaling")
            return cls(*(float(fields.get(name, 1.0)) for name in names))
        if family.scales == "gemma":
            return cls(
                float(fields["query_pre_attn_scalar"]) ** -0.5,
                embedding=float(fields["hidden_size"]) ** 0.5,
                attention_cap=float(fields.get("attn_logit_softcapping") or 0.0),
                logit_cap=float(fields.get("final_logit_softcapping") or 0.0),
            )
        return cls(head_dim**-0.5, clip=float(fields.get("clip_qkv") or 0.0) if family.clipped else 0.0)


_MIXTRAL_EXPERTS = ExpertNames("block_sparse_moe", "w1", "w3", "w2")
_EXPERTS = ExpertNames("mlp", "gate_proj", "up_proj", "down_proj")
_GEMMA = {
    "head_dim": 256,
    "hidden_activation": "gelu_pytorch_tanh",
    "num_attention_heads": 8,
    "num_key_value_heads": 4,
    "query_pre_attn_scalar": 256,
    "sliding_window": 4096,
    "tie_word_embeddings": True,
}
_GEMMA_2 = {**_GEMMA, "attn_logit_softcapping": 50.0, "final_logit_softcapping": 30.0, "max_position_embeddings": 8192}
_GEMMA_3 = {**_GEMMA, "max_position_embeddings": 131072, "vocab_size": 262208}
_FAMILIES: Mapping[str, Family] = {
    "Llama": Family(),
    "Mistral": Family(windowed="all"),
    "Qwen2": Family(query_bias=True, windowed="flagged"),
    "Qwen3": Family(query_norm="head", windowed="flagged"),
    "Phi3": Family(windowed="all", fused=True, rotates_in_part=True, rope_type="longrope"),
    "Olmo2": Family(norms=_AFTER, query_norm="row"),
    "SmolLM3": Family({"tie_word_embeddings": True, "no_rope_layer_interval": 4}, windowed="flagged", unrotated=True),
    "Granite": Family(scales="granite"),
    "Mixtral": Family(windowed="all", experts=_MIXTRAL_EXPERTS, normalised=True),
    "Qwen3Moe": Family(query_norm="head", windowed="flagged all", experts=_EXPERTS),
    "Olmoe": Family(query_norm="row", clipped=True, experts=_EXPERTS),
    "Gemma2": Family(_GEMMA_2, norms=_AROUND, centred=True, windowed="typed", global_every=2, scales="gemma"),
    "Gemma3": Family(
        _GEMMA_3,
        norms=_AROUND,
        centred=True,
        query_norm="head",
        windowed="typed",
        global_every=6,
        local_rope=True,
        scales="gemma",
    ),
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
_ARCHITECTURES: Mapping[str, Family] = {
    **{name + head: family for name, family in _FAMILIES.items() for head in _HEADS},
    "Gemma3ForConditionalGeneration": _FAMILIES["Gemma3"],  # its language model; there are no images
}
_REFUSED = {"use_bidirectional_attention": "causal attention"}
"""Fields that must be false or missing, and what is computed instead."""


def family_of(fields: Fields, where: str) -> Family:
    """The family of a config. Raises UnsupportedModel, which names the field. where: the path, for the message."""
    architecture = (fields.get("architectures") or ["none given"])[0]
    family = _ARCHITECTURES.get(architecture)
    if family is None:
        supported = f"{', '.join(_FAMILIES)}, each with {', '.join(_HEADS)}"
        raise UnsupportedModel(f"{where}: architecture {architecture!r} is not supported; supported: {supported}")
    if fields.get("quantization_config"):
        raise UnsupportedModel(f"{where}: quantization_config is not supported; supported: unquantised weights")
    for name, instead in _REFUSED.items():
        if fields.get(name):
            raise UnsupportedModel(f"{where}: {name} {fields[name]!r} is not supported; supported: {instead}")
    return family


def activation_of(fields: Fields, where: str) -> Activation:
    """The activation of a config. Raises UnsupportedModel, which names the field. where: as in `family_of`."""
    field = "hidden_activation" if fields.get("hidden_activation") else "hidden_act"  # the former is Gemma's
    name = fields.get(field, "silu")
    if name not in _ACTIVATIONS:
        supported = ", ".join(map(repr, _ACTIVATIONS))
        raise UnsupportedModel(f"{where}: {field} {name!r} is not supported; supported: {supported}")
    return _ACTIVATIONS[name]
