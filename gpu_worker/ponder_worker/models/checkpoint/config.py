"""The shape of a transformer, as config.json and the table of families describe it."""

from dataclasses import dataclass
from pathlib import Path

from ponder_worker.models.checkpoint.family import Activation, Family, Scales, activation_of, family_of
from ponder_worker.models.checkpoint.folder import Fields, read_json
from ponder_worker.models.checkpoint.mixture import Mixture
from ponder_worker.models.checkpoint.rope import Rotation
from ponder_worker.models.model_error import InvalidFile

_LOCAL = "sliding_attention"


@dataclass(frozen=True, slots=True)
class ModelConfig:
    """The sizes and traits of a model. Sizes are counts of elements.

    context_tokens: the longest sequence that the model is made for, and served with. rotations: `[num_layers]`, how
    positions rotate queries and keys. query_bias: q, k and v have biases. windows: `[num_layers]`, the number of tokens
    that a layer looks back on, its own included; None means all of them. mixture: None if every layer is dense.
    """

    family: Family
    vocabulary_size: int
    hidden_size: int
    intermediate_size: int
    num_layers: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    context_tokens: int
    norm_epsilon: float
    rotations: tuple[Rotation, ...]
    tied_embeddings: bool
    query_bias: bool
    output_bias: bool
    mlp_bias: bool
    windows: tuple[int | None, ...]
    scales: Scales
    activation: Activation
    mixture: Mixture | None
    dtype: str

    @classmethod
    def read(cls, folder: str | Path) -> "ModelConfig":
        """Reads `folder/config.json`. Raises UnsupportedModel, which names what is not implemented, or InvalidFile."""
        folder = Path(folder)
        return cls.parse(read_json(folder, "config.json"), where=f"{folder}/config.json")

    @classmethod
    def parse(cls, fields: Fields, where: str = "config.json") -> "ModelConfig":
        """Parses the fields of a config. where: the path, for error messages."""
        text = fields.get("text_config")  # the language model's, in a model that sees
        if isinstance(text, dict):
            fields = {**fields, **text, "architectures": fields.get("architectures")}
        family = family_of(fields, where)
        fields = {**family.defaults, **fields}
        try:
            config = cls._of(fields, family, where)
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
    def _of(cls, fields: Fields, family: Family, where: str) -> "ModelConfig":
        num_heads, num_layers = int(fields["num_attention_heads"]), int(fields["num_hidden_layers"])
        hidden_size = int(fields["hidden_size"])
        head_dim = int(fields.get("head_dim") or hidden_size // num_heads)
        rotations = _rotations(family, fields, num_layers, head_dim, where)
        return cls(
            family=family,
            vocabulary_size=int(fields["vocab_size"]),
            hidden_size=hidden_size,
            intermediate_size=int(fields["intermediate_size"]),
            num_layers=num_layers,
            num_heads=num_heads,
            num_kv_heads=int(fields.get("num_key_value_heads") or num_heads),
            head_dim=head_dim,
            context_tokens=min(rotation.context_tokens for rotation in rotations),
            norm_epsilon=float(fields.get("rms_norm_eps", 1e-6)),
            rotations=rotations,
            tied_embeddings=bool(fields.get("tie_word_embeddings", False)),
            query_bias=family.query_bias or bool(fields.get("attention_bias", False)),
            output_bias=not family.query_bias and bool(fields.get("attention_bias", False)),
            mlp_bias=bool(fields.get("mlp_bias", False)),
            windows=_windows(family, fields, num_layers),
            scales=Scales.of(family, fields, head_dim),
            activation=activation_of(fields, where),
            mixture=Mixture.of(fields, num_layers, normalised=family.normalised) if family.experts else None,
            dtype=str(fields.get("dtype") or fields.get("torch_dtype") or "float32"),
        )


def _rotations(family: Family, fields: Fields, num_layers: int, head_dim: int, where: str) -> tuple[Rotation, ...]:
    """The rotation of each layer."""
    context_tokens = int(fields.get("max_position_embeddings", 2048))

    def rotation(rope: Fields) -> Rotation:
        return Rotation.of(rope, head_dim, context_tokens, where, in_part=family.rotates_in_part)

    if family.local_rope:
        by_type = {kind: rotation(_rope_of_type(fields, kind)) for kind in ("full_attention", _LOCAL)}
        return tuple(by_type[kind] for kind in _layer_types(family, fields, num_layers))
    common = rotation(_rope_fields(family, fields))
    unrotated = Rotation.none(common.context_tokens)
    return tuple(common if rotates else unrotated for rotates in _rotated_layers(family, fields, num_layers))


def _rope_of_type(fields: Fields, kind: str) -> Fields:
    """The rope fields of layers with a window, or of those without: Gemma-3 scales only the latter."""
    given: Fields = dict((fields.get("rope_parameters") or {}).get(kind) or {})
    if kind == _LOCAL:
        return {"rope_theta": fields.get("rope_local_base_freq", 1e4)} | given
    return {"rope_theta": fields.get("rope_theta", 1e6)} | given | (fields.get("rope_scaling") or {})


def _rope_fields(family: Family, fields: Fields) -> Fields:
    """Collects the rope fields: transformers 5 writes `rope_parameters`, older versions fields of the config."""
    merged: Fields = {name: fields[name] for name in ("rope_theta", "partial_rotary_factor") if name in fields}
    merged.update(fields.get("rope_scaling") or {})
    merged.update(fields.get("rope_parameters") or {})
    if "original_max_position_embeddings" in fields:  # prevails, as in transformers
        merged["original_max_position_embeddings"] = fields["original_max_position_embeddings"]
    kind = merged.get("rope_type") or merged.get("type") or "default"
    if family.rope_type and kind != "default":
        merged["rope_type"] = family.rope_type
    return merged


def _rotated_layers(family: Family, fields: Fields, num_layers: int) -> list[bool]:
    """Whether each layer rotates queries and keys."""
    if not family.unrotated:
        return [True] * num_layers
    given = fields.get("no_rope_layers")  # 1 for the layers that do rotate
    if given is None:
        every = int(fields["no_rope_layer_interval"])
        return [bool((layer + 1) % every) for layer in range(num_layers)]
    if len(given) < num_layers:
        raise ValueError(f"no_rope_layers has {len(given)} entries, but num_hidden_layers is {num_layers}")
    return [bool(rotates) for rotates in given[:num_layers]]


def _windows(family: Family, fields: Fields, num_layers: int) -> tuple[int | None, ...]:
    """The number of tokens that each layer looks back on, its own included; None means all of them."""
    window = fields.get("sliding_window")
    is_off = "flagged" in family.windowed and not fields.get("use_sliding_window", False)
    if family.windowed == "none" or window is None or is_off:
        return (None,) * num_layers
    if "all" in family.windowed:
        return (int(window),) * num_layers
    return tuple(int(window) if kind == _LOCAL else None for kind in _layer_types(family, fields, num_layers))


def _layer_types(family: Family, fields: Fields, num_layers: int) -> list[str]:
    """The type of each layer, in transformers' words."""
    given: list[str] | None = fields.get("layer_types")
    if given is not None:
        if len(given) != num_layers:
            raise ValueError(f"layer_types has {len(given)} entries, but num_hidden_layers is {num_layers}")
        return given
    if family.global_every:
        every = int(fields.get("sliding_window_pattern") or family.global_every)
        is_local = [bool((layer + 1) % every) for layer in range(num_layers)]
    elif family.unrotated:
        is_local = [not rotates for rotates in _rotated_layers(family, fields, num_layers)]
    else:
        first = int(fields.get("max_window_layers", 28))
        is_local = [layer >= first for layer in range(num_layers)]
    return [_LOCAL if local else "full_attention" for local in is_local]
