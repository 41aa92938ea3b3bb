"""A decoder-only transformer over one flat step: tokens of many sequences, keys and values in pages."""

import math
from collections.abc import Sequence as Series
from dataclasses import replace
from pathlib import Path

import torch
import torch.nn.functional as F

from ponder_worker.models import attention, int8
from ponder_worker.models.checkpoint import weights as weights_module
from ponder_worker.models.checkpoint.config import ModelConfig, RopeScaling
from ponder_worker.models.checkpoint.weights import LayerWeights, Weights
from ponder_worker.models.eager import Eager
from ponder_worker.models.fused import Fused
from ponder_worker.models.linear import Linear, linear, rest
from ponder_worker.models.native.layer import Native, native
from ponder_worker.models.operations import Operations
from ponder_worker.models.pages import Pages, vector_bytes
from ponder_worker.models.step import Step

_MOST_ROWS = 512  # of a step, that are fed forward together on a CPU


class _Layer:
    """One layer's norms, and its matrix products."""

    __slots__ = ("attention_norm", "down", "gate_up", "head_norms", "mlp_norm", "output", "query_key_value")

    def __init__(self, layer: LayerWeights, as_int8: bool) -> None:
        self.attention_norm, self.mlp_norm = layer.attention_norm, layer.mlp_norm
        self.head_norms = layer.query_norm, layer.key_norm
        self.query_key_value = linear(layer.query_key_value, layer.query_key_value_bias, as_int8=as_int8)
        self.output = linear(layer.output, layer.output_bias, as_int8=as_int8)
        self.gate_up = linear(layer.gate_up, layer.gate_up_bias, as_int8=as_int8)
        self.down = linear(layer.down, layer.down_bias, as_int8=as_int8)


class Transformer:
    """Llama-type: RMS norm, rotary positions, grouped queries, SwiGLU."""

    def __init__(
        self, config: ModelConfig, weights: Weights, *, as_int8: bool = False, kv_dtype: torch.dtype | None = None
    ) -> None:
        """as_int8: the layers' products are int8 by int8, the rest keeps the weights' dtype, which is bfloat16 then.
        kv_dtype: of keys and values in pages, the weights' or float8_e4m3fn; None: the weights'."""
        self.config = config
        self._layers = [_Layer(layer, as_int8) for layer in weights.layers]
        self._unembed = linear(weights.unembedding, None)
        self.dtype = weights.embedding.dtype
        self.kv_dtype = kv_dtype or self.dtype
        self.device = weights.embedding.device
        self._cosine, self._sine = _rotary_table(config, self.device)
        self._native = _native(config, self.kv_dtype, self.device)  # C knows no float8
        self._between: Operations = self._native or (Fused() if self.device.type == "cuda" else Eager())
        self.weights = _without_packed(weights, self._layers, self._unembed)
        self._scale = config.head_dim**-0.5

    @classmethod
    def load(
        cls, folder: str | Path, *, dtype: torch.dtype, device: torch.device, kv_dtype: torch.dtype | None = None
    ) -> "Transformer":
        """Raises a ModelError. dtype int8: of the layers' weights and activations; the rest is bfloat16 then."""
        as_int8 = dtype == torch.int8
        if as_int8:
            int8.check(device)
            dtype = torch.bfloat16
        config = ModelConfig.read(folder)
        weights = weights_module.load(folder, config, dtype=dtype, device=device)
        return cls(config, weights, as_int8=as_int8, kv_dtype=kv_dtype)

    @property
    def flops_per_token(self) -> int:
        """Of the matrix products of one token, its logits included; attention over the context is counted as bytes."""
        layer = self.weights.layers[0]
        matrices = (layer.query_key_value, layer.output, layer.gate_up, layer.down)
        return 2 * (self.config.num_layers * sum(m.numel() for m in matrices) + self.weights.unembedding.numel())

    @property
    def kv_bytes_per_token(self) -> int:
        """Keys and values of one token in all layers, scales included."""
        config = self.config
        return 2 * config.num_layers * config.num_kv_heads * vector_bytes(config.head_dim, self.kv_dtype)

    def new_pages(self, num_pages: int, page_size: int) -> tuple[Pages, ...]:
        """A layer each, zeroed: attention multiplies masked ones."""
        config = self.config
        shape = (config.num_layers * num_pages, 2, config.num_kv_heads, page_size, config.head_dim)
        return Pages.zeros(shape, self.kv_dtype, self.device).layers(config.num_layers, num_pages)

    def layouts(
        self, query_lengths: torch.Tensor, context_lengths: torch.Tensor, page_table: torch.Tensor, pages: Series[Pages]
    ) -> tuple[attention.Layout, ...]:
        """Of a step, one a layer; layers that look back equally far share theirs. Arguments: `attention.layout`,
        but `pages` as `new_pages` makes them."""
        longest = int(context_lengths.max())
        windows = [None if window is None or window >= longest else window for window in self.config.windows]
        of = {
            window: attention.layout(
                query_lengths,
                context_lengths,
                page_table,
                pages=pages[0].numbers,
                window=window,
                num_heads=self.config.num_heads,
                native=self._native,
            )
            for window in set(windows)
        }
        return tuple(of[window] for window in windows)

    def forward(
        self,
        tokens: torch.Tensor,
        positions: torch.Tensor,
        slots: torch.Tensor,
        where: Series[attention.Layout],
        pages: Series[Pages],
    ) -> torch.Tensor:
        """One step. Each layer writes its keys and values before it attends, so that sequences of one step may share.

        tokens, positions, slots: `[num_tokens]` int64; where: a layout a layer; pages: as `new_pages` makes them
        -> hidden states `[num_tokens, hidden]` after the last norm
        """
        between, epsilon = self._between, self.config.norm_epsilon
        step = Step(positions, slots, self._cosine, self._sine, epsilon)
        hidden = F.embedding(tokens, self.weights.embedding)
        delta: torch.Tensor | None = None
        for layer, layout, layer_pages in zip(self._layers, where, pages, strict=True):
            fused = layer.query_key_value(between.add_and_normalise(hidden, delta, layer.attention_norm, epsilon))
            q = between.rotate_and_write(fused, layer_pages, step, layer.head_norms)
            mixed = attention.attend(q, layer_pages, layout, self._scale, self._native)
            delta = layer.output(mixed.view(len(hidden), -1))
            delta = self._feed_forward(layer, between.add_and_normalise(hidden, delta, layer.mlp_norm, epsilon))
        return between.add_and_normalise(hidden, delta, self.weights.norm, epsilon)

    def _feed_forward(self, layer: _Layer, x: torch.Tensor) -> torch.Tensor:
        """On a CPU some rows at a time: what stands between the products, ten times their size, then stays in the
        caches, and in memory that the allocator has at hand."""
        most = _MOST_ROWS if x.device.type == "cpu" else len(x)
        if len(x) <= most:
            return layer.down(self._between.gate(layer.gate_up(x)))
        return torch.cat([self._feed_forward(layer, x[first : first + most]) for first in range(0, len(x), most)])

    def logits(self, hidden: torch.Tensor) -> torch.Tensor:
        """`[num_rows, hidden]` -> float32 `[num_rows, vocabulary]`"""
        return self._unembed(hidden).float()

    def logits_of(self, hidden: torch.Tensor, tokens: list[int]) -> torch.Tensor:
        """`[num_rows, hidden]` -> float32 `[num_rows, len(tokens)]`, of these tokens only."""
        matrix = self.weights.unembedding
        if matrix.is_meta:  # one that is laid out anew has no rows to take
            return self.logits(hidden)[:, tokens]
        return F.linear(hidden, matrix[tokens]).float()


def _without_packed(weights: Weights, layers: Series[_Layer], unembed: Linear) -> Weights:
    """Matrices that `linear` laid out anew keep their shapes only: nothing is held twice but tied embeddings."""
    names = ("query_key_value", "output", "gate_up", "down")
    kept = tuple(
        replace(layer, **{name: rest(getattr(layer, name), getattr(products, name)) for name in names})
        for layer, products in zip(weights.layers, layers, strict=True)
    )
    unembedding = weights.unembedding
    if unembedding is not weights.embedding:
        unembedding = rest(unembedding, unembed)
    return replace(weights, layers=kept, unembedding=unembedding)


def _native(config: ModelConfig, dtype: torch.dtype, device: torch.device) -> Native | None:
    if device.type != "cpu":
        return None
    return native(dtype, config.head_dim, config.hidden_size, config.intermediate_size)


def _rotary_table(config: ModelConfig, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """Cosines and sines, each float32 `[context_tokens, head_dim / 2]`."""
    exponent = torch.arange(0, config.head_dim, 2, dtype=torch.float32) / config.head_dim
    frequency = 1.0 / config.rope_theta**exponent
    if config.rope_scaling is not None:
        frequency = _stretch(frequency, config.rope_scaling)
    angle = torch.outer(torch.arange(config.context_tokens, dtype=torch.float32), frequency)
    return angle.cos().to(device), angle.sin().to(device)


def _stretch(frequency: torch.Tensor, scaling: RopeScaling) -> torch.Tensor:
    """Low frequencies divided by the factor, high ones kept, those between blended."""
    turns = scaling.original_context_tokens * frequency / (2 * math.pi)
    span = scaling.high_frequency_factor - scaling.low_frequency_factor
    keep = ((turns - scaling.low_frequency_factor) / span).clamp(0.0, 1.0)
    return frequency * keep + frequency / scaling.factor * (1 - keep)
