"""All weights of a model, as its config asks for them."""

import logging
from dataclasses import dataclass
from pathlib import Path

import torch

from ponder_worker.models.checkpoint.config import ModelConfig
from ponder_worker.models.checkpoint.layer_weights import LayerWeights, load_layer
from ponder_worker.models.checkpoint.tensor_source import TensorSource
from ponder_worker.models.model_error import MismatchedTensor

_log = logging.getLogger(__name__)
_EMBEDDING, _UNEMBEDDING = "model.embed_tokens.weight", "lm_head.weight"
_HEADS = (("score.0", "score.2"), ("score",), ("v_head.summary",))


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


def load(folder: str | Path, config: ModelConfig, *, dtype: torch.dtype, device: torch.device) -> Weights:
    """Loads all weights of a model. Raises InvalidFile, or MissingTensor or MismatchedTensor with the tensor's name."""
    source = TensorSource(Path(folder), dtype, device)
    head = _head(source, config)
    embedding, unembedding = _embeddings(source, config, must_unembed=not head)
    return Weights(
        embedding=embedding,
        layers=tuple(load_layer(source, config, index) for index in range(config.num_layers)),
        norm=source.take_norm("model.norm.weight", config.hidden_size, centred=config.family.centred),
        unembedding=unembedding,
        head=head,
    )


def _embeddings(source: TensorSource, config: ModelConfig, *, must_unembed: bool) -> tuple[torch.Tensor, torch.Tensor]:
    """Loads embedding and unembedding, which are the same tensor if they are tied.

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


def _head(source: TensorSource, config: ModelConfig) -> tuple[tuple[torch.Tensor, torch.Tensor | None], ...]:
    """Loads the head of a reward model; empty if there is none.

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
