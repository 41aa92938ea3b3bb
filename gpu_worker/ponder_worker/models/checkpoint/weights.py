"""Weights from memory-mapped safetensors files. Projections that are used together are fused."""

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from ponder_worker.models.checkpoint.config import ModelConfig
from ponder_worker.models.checkpoint.folder import weight_files
from ponder_worker.models.model_error import InvalidFile, MismatchedTensor, MissingTensor

_log = logging.getLogger(__name__)
_EMBEDDING, _UNEMBEDDING = "model.embed_tokens.weight", "lm_head.weight"
_HEADS = (("score.0", "score.2"), ("score",), ("v_head.summary",))
_WRAPPER = "pretrained_model."  # precedes the names in a model that was saved with a value head around it


@dataclass(frozen=True, slots=True)
class LayerWeights:
    """The weights of one layer. Matrices are `[out, in]`, as in torch's linear; biases are None if the config has none.

    query_key_value: `[(num_heads + 2 * num_kv_heads) * head_dim, hidden]`. gate_up: `[2 * intermediate, hidden]`.
    query_norm, key_norm: `[head_dim]`, or None if the architecture has none.
    """

    attention_norm: torch.Tensor
    query_key_value: torch.Tensor
    query_key_value_bias: torch.Tensor | None
    output: torch.Tensor
    output_bias: torch.Tensor | None
    mlp_norm: torch.Tensor
    gate_up: torch.Tensor
    gate_up_bias: torch.Tensor | None
    down: torch.Tensor
    down_bias: torch.Tensor | None
    query_norm: torch.Tensor | None
    key_norm: torch.Tensor | None


@dataclass(frozen=True, slots=True)
class Weights:
    """All weights of a model.

    embedding, unembedding: `[vocabulary, hidden]`, the same tensor if they are tied. norm: `[hidden]`.
    head: the matrices and biases of a reward model's own head, in order, with a ReLU between them; empty for a language
    model. A model with a head may have no unembedding of its own.
    """

    embedding: torch.Tensor
    layers: tuple[LayerWeights, ...]
    norm: torch.Tensor
    unembedding: torch.Tensor
    head: tuple[tuple[torch.Tensor, torch.Tensor | None], ...] = ()


class _Source:
    """The named tensors of a folder, which are checked and cast when they are taken."""

    def __init__(self, folder: Path, dtype: torch.dtype, device: torch.device) -> None:
        self.folder, self._dtype, self._device = folder, dtype, device
        self._file_of: dict[str, tuple[Any, str]] = {}  # the file, and the name of the tensor in it
        open_file: Any = safe_open  # the library is untyped
        for path in weight_files(folder):
            try:
                # A handle maps its file. A tensor is read when it is taken, directly to the device.
                file = open_file(path, framework="pt", device=str(device))
            except SafetensorError as error:
                raise InvalidFile(f"{path}: not a safetensors file: {error}") from error
            self._file_of.update({name.removeprefix(_WRAPPER): (file, name) for name in file.keys()})  # noqa: SIM118

    def has(self, name: str) -> bool:
        """Whether there is a tensor of this name."""
        return name in self._file_of

    def take_any(self, name: str) -> torch.Tensor:
        """Take a tensor of any shape."""
        file, stored = self._file_of[name]
        tensor: torch.Tensor = file.get_tensor(stored)
        return tensor.to(device=self._device, dtype=self._dtype)

    def take(self, name: str, *shape: int) -> torch.Tensor:
        """Take a tensor of this shape. Raises MissingTensor or MismatchedTensor."""
        if not self.has(name):
            raise MissingTensor(f"{self.folder}: the weights lack the tensor {name!r}, which config.json asks for")
        file, stored = self._file_of[name]
        tensor: torch.Tensor = file.get_tensor(stored)
        if tuple(tensor.shape) != shape:
            raise MismatchedTensor(
                f"{self.folder}: {name} is {list(tensor.shape)}, but config.json asks for {list(shape)}"
            )
        return tensor.to(device=self._device, dtype=self._dtype)

    def fuse(self, parts: dict[str, int], *columns: int) -> torch.Tensor:
        """Take the named tensors, each `[rows, *columns]`, and concatenate them along the rows."""
        return torch.cat([self.take(name, rows, *columns) for name, rows in parts.items()])


def load(folder: str | Path, config: ModelConfig, *, dtype: torch.dtype, device: torch.device) -> Weights:
    """Load all weights of a model. Raises InvalidFile, or MissingTensor or MismatchedTensor with the tensor's name."""
    source = _Source(Path(folder), dtype, device)
    head = _head(source, config)
    embedding, unembedding = _embeddings(source, config, must_unembed=not head)
    return Weights(
        embedding=embedding,
        layers=tuple(_layer(source, config, index) for index in range(config.num_layers)),
        norm=source.take("model.norm.weight", config.hidden_size),
        unembedding=unembedding,
        head=head,
    )


def _embeddings(source: _Source, config: ModelConfig, *, must_unembed: bool) -> tuple[torch.Tensor, torch.Tensor]:
    """Load embedding and unembedding, which are the same tensor if they are tied.

    As in transformers, the checkpoint prevails if config.json ties the two but they differ. If one is missing, the
    other takes its place.
    """
    shape = (config.vocabulary_size, config.hidden_size)
    has_unembedding = source.has(_UNEMBEDDING)
    if config.tied_embeddings and has_unembedding and not source.has(_EMBEDDING):
        unembedding = source.take(_UNEMBEDDING, *shape)
        return unembedding, unembedding
    embedding = source.take(_EMBEDDING, *shape)
    if not has_unembedding and (config.tied_embeddings or not must_unembed):
        return embedding, embedding
    unembedding = source.take(_UNEMBEDDING, *shape)
    if config.tied_embeddings:
        if torch.equal(embedding, unembedding):
            return embedding, embedding
        _log.warning(
            "%s: config.json ties %s to %s, but the weights hold both, with different values; both are used. "
            "Set `tie_word_embeddings: false` in config.json to silence this warning",
            *(source.folder, _UNEMBEDDING, _EMBEDDING),
        )
    return embedding, unembedding


def _head(source: _Source, config: ModelConfig) -> tuple[tuple[torch.Tensor, torch.Tensor | None], ...]:
    """Load the head of a reward model; empty if there is none.

    Its names are `score.0` and `score.2` in Qwen2.5-Math-PRM, `score` in transformers' classifiers, and
    `v_head.summary` in Skywork's models.
    """
    stems = next((s for s in _HEADS if source.has(f"{s[-1]}.weight")), ())
    head = []
    width = config.hidden_size
    for stem in stems:
        weight = source.take_any(f"{stem}.weight")
        rows = weight.shape[0]
        if weight.shape != (rows, width):
            raise MismatchedTensor(
                f"{source.folder}: {stem}.weight is {list(weight.shape)}, but its input has {width} columns"
            )
        head.append((weight, source.take(f"{stem}.bias", rows) if source.has(f"{stem}.bias") else None))
        width = rows
    return tuple(head)


def _layer(source: _Source, config: ModelConfig, index: int) -> LayerWeights:
    prefix = f"model.layers.{index}."
    hidden, inner = config.hidden_size, config.intermediate_size
    queries, keys = config.num_heads * config.head_dim, config.num_kv_heads * config.head_dim
    attention = {"q_proj": queries, "k_proj": keys, "v_proj": keys}
    mlp = {"gate_proj": inner, "up_proj": inner}

    def named(module: str, parts: dict[str, int], kind: str) -> dict[str, int]:
        return {f"{prefix}{module}.{name}.{kind}": rows for name, rows in parts.items()}

    def bias(wanted: bool, module: str, parts: dict[str, int]) -> torch.Tensor | None:
        return source.fuse(named(module, parts, "bias")) if wanted else None

    def norm(name: str) -> torch.Tensor | None:
        return source.take(f"{prefix}self_attn.{name}.weight", config.head_dim) if config.query_norm else None

    return LayerWeights(
        attention_norm=source.take(prefix + "input_layernorm.weight", hidden),
        query_key_value=source.fuse(named("self_attn", attention, "weight"), hidden),
        query_key_value_bias=bias(config.query_bias, "self_attn", attention),
        output=source.take(prefix + "self_attn.o_proj.weight", hidden, queries),
        output_bias=bias(config.output_bias, "self_attn", {"o_proj": hidden}),
        mlp_norm=source.take(prefix + "post_attention_layernorm.weight", hidden),
        gate_up=source.fuse(named("mlp", mlp, "weight"), hidden),
        gate_up_bias=bias(config.mlp_bias, "mlp", mlp),
        down=source.take(prefix + "mlp.down_proj.weight", hidden, inner),
        down_bias=bias(config.mlp_bias, "mlp", {"down_proj": hidden}),
        query_norm=norm("q_norm"),
        key_norm=norm("k_norm"),
    )
