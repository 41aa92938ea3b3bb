"""The shape of a transformer, as config.json describes it."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ponder_worker.models.checkpoint.architecture import ARCHITECTURES, Architecture, windows
from ponder_worker.models.checkpoint.folder import read_json
from ponder_worker.models.model_error import InvalidFile, UnsupportedModel


@dataclass(frozen=True, slots=True)
class RopeScaling:
    """Llama 3's scaling of low frequencies (https://arxiv.org/abs/2407.21783, section 3.4.3)."""

    factor: float
    low_frequency_factor: float
    high_frequency_factor: float
    original_context_tokens: int


@dataclass(frozen=True, slots=True)
class ModelConfig:
    """The sizes and traits of a model. Sizes are counts of elements.

    context_tokens: the longest sequence that the model was made for. query_bias: q, k and v have biases. query_norm:
    queries and keys are normalised before the rotation, each head by itself. windows: `[num_layers]`, the number of
    tokens that a layer looks back on, its own included; None means all of them.
    """

    vocabulary_size: int
    hidden_size: int
    intermediate_size: int
    num_layers: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    context_tokens: int
    norm_epsilon: float
    rope_theta: float
    rope_scaling: RopeScaling | None
    tied_embeddings: bool
    query_bias: bool
    output_bias: bool
    mlp_bias: bool
    query_norm: bool
    windows: tuple[int | None, ...]
    dtype: str

    @classmethod
    def read(cls, folder: str | Path) -> "ModelConfig":
        """Read `folder/config.json`. Raises UnsupportedModel, which names what is not implemented, or InvalidFile."""
        folder = Path(folder)
        return cls.parse(read_json(folder, "config.json"), where=f"{folder}/config.json")

    @classmethod
    def parse(cls, fields: dict[str, Any], where: str = "config.json") -> "ModelConfig":
        """Parse the fields of a config. where: the path, for error messages."""
        architecture = _architecture(fields, where)
        try:
            config = cls._of(fields, architecture, where)
        except KeyError as error:
            raise InvalidFile(f"{where}: the field {error.args[0]!r} is missing") from error
        except (TypeError, ValueError) as error:
            raise InvalidFile(f"{where}: {error}") from error
        if config.num_heads % config.num_kv_heads:
            raise InvalidFile(
                f"{where}: num_attention_heads={config.num_heads} is not a multiple of "
                f"num_key_value_heads={config.num_kv_heads}"
            )
        return config

    @classmethod
    def _of(cls, fields: dict[str, Any], architecture: Architecture, where: str) -> "ModelConfig":
        num_heads, num_layers = int(fields["num_attention_heads"]), int(fields["num_hidden_layers"])
        hidden_size = int(fields["hidden_size"])
        rope = _rope_fields(fields)
        return cls(
            vocabulary_size=int(fields["vocab_size"]),
            hidden_size=hidden_size,
            intermediate_size=int(fields["intermediate_size"]),
            num_layers=num_layers,
            num_heads=num_heads,
            num_kv_heads=int(fields.get("num_key_value_heads") or num_heads),
            head_dim=int(fields.get("head_dim") or hidden_size // num_heads),
            context_tokens=int(fields.get("max_position_embeddings", 2048)),
            norm_epsilon=float(fields.get("rms_norm_eps", 1e-6)),
            rope_theta=float(rope.get("rope_theta", 10000.0)),
            rope_scaling=_rope_scaling(rope, where),
            tied_embeddings=bool(fields.get("tie_word_embeddings", False)),
            query_bias=architecture.query_bias or bool(fields.get("attention_bias", False)),
            output_bias=not architecture.query_bias and bool(fields.get("attention_bias", False)),
            mlp_bias=bool(fields.get("mlp_bias", False)),
            query_norm=architecture.query_norm,
            windows=windows(architecture, fields, num_layers),
            dtype=str(fields.get("dtype") or fields.get("torch_dtype") or "float32"),
        )


def _architecture(fields: dict[str, Any], where: str) -> Architecture:
    names = fields.get("architectures") or ["none given"]
    architecture = ARCHITECTURES.get(names[0])
    if architecture is None:
        raise UnsupportedModel(
            f"{where}: architecture {names[0]!r} is not supported; supported: {', '.join(ARCHITECTURES)}"
        )
    activation = fields.get("hidden_act", "silu")
    if activation != "silu":
        raise UnsupportedModel(f"{where}: hidden_act {activation!r} is not supported; supported: 'silu'")
    if fields.get("quantization_config"):
        raise UnsupportedModel(f"{where}: quantization_config is not supported; supported: unquantised weights")
    return architecture


def _rope_fields(fields: dict[str, Any]) -> dict[str, Any]:
    """The rope fields in one place: transformers 5 writes `rope_parameters`, older versions two fields."""
    merged: dict[str, Any] = {}
    if "rope_theta" in fields:
        merged["rope_theta"] = fields["rope_theta"]
    merged.update(fields.get("rope_scaling") or {})
    merged.update(fields.get("rope_parameters") or {})
    return merged


def _rope_scaling(rope: dict[str, Any], where: str) -> RopeScaling | None:
    kind = rope.get("rope_type") or rope.get("type") or "default"
    if kind == "default":
        return None
    if kind != "llama3":
        raise UnsupportedModel(f"{where}: rope type {kind!r} is not supported; supported: 'default', 'llama3'")
    return RopeScaling(
        factor=float(rope["factor"]),
        low_frequency_factor=float(rope["low_freq_factor"]),
        high_frequency_factor=float(rope["high_freq_factor"]),
        original_context_tokens=int(rope["original_max_position_embeddings"]),
    )
