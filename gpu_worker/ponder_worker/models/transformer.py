"""A decoder-only transformer over one flat step: the tokens of many sequences, with keys and values in pages."""

import math
from collections.abc import Sequence as Series
from dataclasses import replace
from pathlib import Path

import torch
import torch.nn.functional as F

from ponder_worker.models import attention, int8
from ponder_worker.models.attention import AttentionLayout
from ponder_worker.models.checkpoint import weights as weights_module
from ponder_worker.models.checkpoint.config import ModelConfig, RopeScaling
from ponder_worker.models.checkpoint.weights import LayerWeights, Weights
from ponder_worker.models.kv_pages import Pages, vector_bytes
from ponder_worker.models.linear import Linear, kept_weight, linear
from ponder_worker.models.native.native_operations import NativeOperations, native_operations
from ponder_worker.models.operations import ForwardContext, FusedOperations, Operations, TorchOperations

_MOST_ROWS = 512  # of a step that go through the feed-forward layer together on a CPU


class _Layer:
    """The norms and matrix products of one layer."""

    __slots__ = ("attention_norm", "down", "gate_up", "head_norms", "mlp_norm", "output", "query_key_value")

    def __init__(self, layer: LayerWeights, as_int8: bool) -> None:
        self.attention_norm, self.mlp_norm = layer.attention_norm, layer.mlp_norm
        self.head_norms = layer.query_norm, layer.key_norm
        self.query_key_value = linear(layer.query_key_value, layer.query_key_value_bias, as_int8=as_int8)
        self.output = linear(layer.output, layer.output_bias, as_int8=as_int8)
        self.gate_up = linear(layer.gate_up, layer.gate_up_bias, as_int8=as_int8)
        self.down = linear(layer.down, layer.down_bias, as_int8=as_int8)


class Transformer:
    """A model of the Llama type: RMS norm, rotary positions, grouped queries, SwiGLU."""

    def __init__(
        self, config: ModelConfig, weights: Weights, *, as_int8: bool = False, kv_dtype: torch.dtype | None = None
    ) -> None:
        """Prepare the weights for the device they are on.

        as_int8: compute the products of the layers in int8; the rest keeps the dtype of the weights, which must be
        bfloat16. kv_dtype: the dtype of keys and values, float8_e4m3fn or, by default, that of the weights.
        """
        self.config = config
        self._layers = [_Layer(layer, as_int8) for layer in weights.layers]
        self._unembed = linear(weights.unembedding, None)
        self.dtype = weights.embedding.dtype
        self.kv_dtype = kv_dtype or self.dtype
        self.device = weights.embedding.device
        self._cosine, self._sine = _rotary_table(config, self.device)
        self._native = _native(config, self.kv_dtype, self.device)  # None for float8, which C does not know
        self._operations: Operations = self._native or _operations(self.device)
        self.weights = _without_packed(weights, self._layers, self._unembed)
        self._scale = config.head_dim**-0.5

    @classmethod
    def load(
        cls, folder: str | Path, *, dtype: torch.dtype, device: torch.device, kv_dtype: torch.dtype | None = None
    ) -> "Transformer":
        """Load a model folder. With dtype int8 the layers compute in int8, and the rest is bfloat16.

        Raises a ModelError.
        """
        as_int8 = dtype == torch.int8
        if as_int8:
            int8.check(device)
            dtype = torch.bfloat16
        config = ModelConfig.read(folder)
        weights = weights_module.load(folder, config, dtype=dtype, device=device)
        return cls(config, weights, as_int8=as_int8, kv_dtype=kv_dtype)

    @property
    def flops_per_token(self) -> int:
        """Floating-point operations of the matrix products for one token, its logits included.

        Attention over the context is not counted here, but as bytes read.
        """
        layer = self.weights.layers[0]
        matrices = (layer.query_key_value, layer.output, layer.gate_up, layer.down)
        return 2 * (self.config.num_layers * sum(m.numel() for m in matrices) + self.weights.unembedding.numel())

    @property
    def kv_bytes_per_token(self) -> int:
        """Bytes of the keys and values of one token in all layers, scales included."""
        config = self.config
        return 2 * config.num_layers * config.num_kv_heads * vector_bytes(config.head_dim, self.kv_dtype)

    def new_pages(self, num_pages: int, page_size: int) -> tuple[Pages, ...]:
        """Pages for each layer. They are zeroed, because attention multiplies masked values by zero."""
        config = self.config
        shape = (config.num_layers * num_pages, 2, config.num_kv_heads, page_size, config.head_dim)
        return Pages.zeros(shape, self.kv_dtype, self.device).layers(config.num_layers, num_pages)

    def layouts(
        self, query_lengths: torch.Tensor, context_lengths: torch.Tensor, page_table: torch.Tensor, pages: Series[Pages]
    ) -> tuple[AttentionLayout, ...]:
        """The layout of a step's attention for each layer. Layers of the same window share theirs.

        The arguments are those of `attention.layout`, except for the pages, which are as `new_pages` makes them.
        """
        longest = int(context_lengths.max())
        windows = [None if window is None or window >= longest else window for window in self.config.windows]
        by_window = {
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
        return tuple(by_window[window] for window in windows)

    def forward(
        self,
        tokens: torch.Tensor,
        positions: torch.Tensor,
        slots: torch.Tensor,
        layouts: Series[AttentionLayout],
        pages: Series[Pages],
    ) -> torch.Tensor:
        """Compute one step. Returns the hidden states `[num_tokens, hidden]` after the last norm.

        Each layer writes its keys and values before it attends, so that sequences of the same step may share pages.
        tokens, positions, slots: `[num_tokens]` int64. layouts: one a layer. pages: as `new_pages` makes them.
        """
        operations, epsilon = self._operations, self.config.norm_epsilon
        context = ForwardContext(positions, slots, self._cosine, self._sine, epsilon)
        hidden = F.embedding(tokens, self.weights.embedding)
        delta: torch.Tensor | None = None
        for layer, layout, layer_pages in zip(self._layers, layouts, pages, strict=True):
            qkv = layer.query_key_value(operations.add_and_normalise(hidden, delta, layer.attention_norm, epsilon))
            q = operations.rotate_and_write(qkv, layer_pages, context, layer.head_norms)
            mixed = attention.attend(q, layer_pages, layout, self._scale, self._native)
            delta = layer.output(mixed.view(len(hidden), -1))
            delta = self._feed_forward(layer, operations.add_and_normalise(hidden, delta, layer.mlp_norm, epsilon))
        return operations.add_and_normalise(hidden, delta, self.weights.norm, epsilon)

    def _feed_forward(self, layer: _Layer, x: torch.Tensor) -> torch.Tensor:
        """Apply the feed-forward layer, on a CPU to some rows at a time.

        The values between the two products are ten times as large as the rows. In pieces they stay in the caches, and
        in memory that the allocator has at hand.
        """
        most = _MOST_ROWS if x.device.type == "cpu" else len(x)
        if len(x) <= most:
            return layer.down(self._operations.gate(layer.gate_up(x)))
        return torch.cat([self._feed_forward(layer, x[first : first + most]) for first in range(0, len(x), most)])

    def logits(self, hidden: torch.Tensor) -> torch.Tensor:
        """Logits, float32 `[num_rows, vocabulary]`, of hidden states `[num_rows, hidden]`."""
        return self._unembed(hidden).float()

    def logits_of(self, hidden: torch.Tensor, tokens: list[int]) -> torch.Tensor:
        """Logits of these tokens only: float32 `[num_rows, len(tokens)]`, of hidden states `[num_rows, hidden]`."""
        matrix = self.weights.unembedding
        if matrix.is_meta:  # the matrix was laid out anew, so single rows cannot be taken from it
            return self.logits(hidden)[:, tokens]
        return F.linear(hidden, matrix[tokens]).float()


def _without_packed(weights: Weights, layers: Series[_Layer], unembed: Linear) -> Weights:
    """Weights in which the matrices that `linear` laid out anew keep only their shapes, so that none is held twice.

    A tied embedding is the exception: it is needed as it is.
    """
    names = ("query_key_value", "output", "gate_up", "down")
    kept = tuple(
        replace(layer, **{name: kept_weight(getattr(layer, name), getattr(products, name)) for name in names})
        for layer, products in zip(weights.layers, layers, strict=True)
    )
    unembedding = weights.unembedding
    if unembedding is not weights.embedding:
        unembedding = kept_weight(unembedding, unembed)
    return replace(weights, layers=kept, unembedding=unembedding)


def _operations(device: torch.device) -> Operations:
    return FusedOperations() if device.type == "cuda" else TorchOperations()


def _native(config: ModelConfig, dtype: torch.dtype, device: torch.device) -> NativeOperations | None:
    if device.type != "cpu":
        return None
    return native_operations(dtype, config.head_dim, config.hidden_size, config.intermediate_size)


def _rotary_table(config: ModelConfig, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """Cosines and sines, each float32 `[context_tokens, head_dim / 2]`."""
    exponent = torch.arange(0, config.head_dim, 2, dtype=torch.float32) / config.head_dim
    frequency = 1.0 / config.rope_theta**exponent
    if config.rope_scaling is not None:
        frequency = _scaled(frequency, config.rope_scaling)
    angle = torch.outer(torch.arange(config.context_tokens, dtype=torch.float32), frequency)
    return angle.cos().to(device), angle.sin().to(device)


def _scaled(frequency: torch.Tensor, scaling: RopeScaling) -> torch.Tensor:
    """Divide low frequencies by the factor, keep high ones, and blend those in between."""
    turns = scaling.original_context_tokens * frequency / (2 * math.pi)
    span = scaling.high_frequency_factor - scaling.low_frequency_factor
    keep = ((turns - scaling.low_frequency_factor) / span).clamp(0.0, 1.0)
    return frequency * keep + frequency / scaling.factor * (1 - keep)
