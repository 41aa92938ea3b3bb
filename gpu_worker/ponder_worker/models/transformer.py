"""A decoder-only transformer over one flat step: the tokens of many sequences, with keys and values in pages."""

from collections.abc import Sequence as Series
from dataclasses import replace
from pathlib import Path

import torch
import torch.nn.functional as F

from ponder_worker.models import attention, int8
from ponder_worker.models.attention import AttentionLayout
from ponder_worker.models.checkpoint import weights as weights_module
from ponder_worker.models.checkpoint.config import ModelConfig
from ponder_worker.models.checkpoint.layer_weights import LayerWeights
from ponder_worker.models.checkpoint.weights import Weights
from ponder_worker.models.kv_pages import LayerGroups, Pages, vector_bytes
from ponder_worker.models.layer import Device, Layer
from ponder_worker.models.linear import Linear, kept_weight, linear
from ponder_worker.models.native.native_operations import NativeOperations, native_operations
from ponder_worker.models.operations import (
    ForwardContext,
    FusedOperations,
    Operations,
    TorchOperations,
)


class Transformer:
    """A model of the Llama type: RMS norm, rotary positions, grouped queries, gated feed-forward layers.

    `checkpoint.family` has the table of what differs between families. flops_per_token: floating-point operations of
    the matrix products for one token, its logits included; of a mixture's experts those that a token is sent to count.
    Attention over the context is not among them, but counted as bytes read. groups: the layers that share a page.
    """

    def __init__(
        self, config: ModelConfig, weights: Weights, *, as_int8: bool = False, kv_dtype: torch.dtype | None = None
    ) -> None:
        """Prepares the weights for the device they are on.

        as_int8: compute the products of the layers in int8; the rest keeps the dtype of the weights, which must be
        bfloat16. kv_dtype: the dtype of keys and values, float8_e4m3fn or, by default, that of the weights.
        """
        self.config = config
        self.groups = LayerGroups.of(config.windows, config.context_tokens)
        self._layers = [Layer(layer, config, as_int8=as_int8) for layer in weights.layers]
        self._unembed = linear(weights.unembedding, None, as_float32=True)
        self.dtype = weights.embedding.dtype
        self.kv_dtype = kv_dtype or self.dtype
        self.device = weights.embedding.device
        rotations = list(dict.fromkeys(config.rotations))  # most models have one for all layers
        tables = [rotation.table(config.head_dim // 2) for rotation in rotations]
        self._tables = [(cosine.to(self.device), sine.to(self.device)) for cosine, sine in tables]
        self._table_of_layer = [rotations.index(rotation) for rotation in config.rotations]
        self._native = _native(config, self.kv_dtype, self.device)  # None for float8, which C does not know
        self._operations = _operations(config, self.device, self._native)
        self.weights = _without_packed(weights, self._layers, self._unembed)
        num_weights = weights.unembedding.numel() + sum(self._weights_per_token(layer) for layer in weights.layers)
        self.flops_per_token = 2 * num_weights
        # Rounded to the dtype, as transformers does.
        self._embedding_scale = float(torch.tensor(config.scales.embedding, dtype=self.dtype))

    @classmethod
    def load(
        cls, folder: str | Path, *, dtype: torch.dtype, device: torch.device, kv_dtype: torch.dtype | None = None
    ) -> "Transformer":
        """Loads a model folder. With dtype int8 the layers compute in int8, and the rest is bfloat16.

        Raises a ModelError.
        """
        as_int8 = dtype == torch.int8
        if as_int8:
            int8.check(device)
            dtype = torch.bfloat16
        config = ModelConfig.read(folder)
        weights = weights_module.load(folder, config, dtype=dtype, device=device)
        return cls(config, weights, as_int8=as_int8, kv_dtype=kv_dtype)

    def _weights_per_token(self, layer: LayerWeights) -> int:
        """Number of a layer's weights that one token is multiplied by."""
        always, feed_forward = layer.query_key_value.numel() + layer.output.numel(), layer.gate_up.numel()
        feed_forward += layer.down.numel()
        mixture = self.config.mixture
        if layer.router is None or mixture is None:
            return always + feed_forward
        return always + layer.router.numel() + feed_forward * mixture.num_chosen // mixture.num_experts

    @property
    def kv_bytes_per_token(self) -> int:
        """Bytes of the keys and values of one token in all layers, scales included."""
        return self.config.num_layers * self._layer_bytes_per_token

    @property
    def windows_by_group(self) -> list[list[int | None]]:
        """The windows of the layers of each group."""
        return [self.groups.of_group(group, self.config.windows) for group in range(self.groups.num_groups)]

    @property
    def page_bytes_per_token(self) -> int:
        """Bytes that the pages of all groups take for one token, places that no layer uses included."""
        return self.groups.num_groups * self.groups.layers_per_page * self._layer_bytes_per_token

    @property
    def _layer_bytes_per_token(self) -> int:
        return 2 * self.config.num_kv_heads * vector_bytes(self.config.head_dim, self.kv_dtype)

    def new_pages(self, num_pages: int, page_size: int) -> tuple[Pages, ...]:
        """Pages for each layer. They are zeroed, because attention multiplies masked values by zero."""
        config = self.config
        shape = (config.num_layers * num_pages, 2, config.num_kv_heads, page_size, config.head_dim)
        return Pages.zeros(shape, self.kv_dtype, self.device).layers(config.num_layers, num_pages)

    def layouts(
        self, query_lengths: torch.Tensor, context_lengths: torch.Tensor, page_table: torch.Tensor, pages: Series[Pages]
    ) -> tuple[AttentionLayout, ...]:
        """The layout of a step's attention for each layer. Layers of the same window share theirs.

        The arguments are those of `attention.layout`, except for the pages, which are as `new_pages` makes them, and
        the table, which may be one of all layers or `[num_groups, num_sequences, max_pages]`.
        """
        longest = int(context_lengths.max())
        windows = (None if window is None or window >= longest else window for window in self.config.windows)
        tables, groups = (page_table, self.groups.group_of_layer) if page_table.dim() == 3 else (page_table[None], None)
        kinds = [(window, 0 if groups is None else groups[layer]) for layer, window in enumerate(windows)]
        by_kind = {
            (window, group): attention.layout(
                query_lengths,
                context_lengths,
                tables[group],
                pages=pages[0].numbers,
                window=window,
                num_heads=self.config.num_heads,
                capped=self.config.scales.attention_cap > 0,
                native=self._native,
            )
            for window, group in set(kinds)
        }
        return tuple(by_kind[kind] for kind in kinds)

    def forward(
        self,
        tokens: torch.Tensor,
        positions: torch.Tensor,
        slots: torch.Tensor,
        layouts: Series[AttentionLayout],
        pages: Series[Pages],
    ) -> torch.Tensor:
        """Computes one step. Returns the hidden states `[num_tokens, hidden]` after the last norm.

        Each layer writes its keys and values before it attends, so that sequences of the same step may share pages.
        tokens, positions: `[num_tokens]` int64. slots: the same for all layers, or `[num_groups, num_tokens]`.
        layouts: one a layer. pages: as `new_pages` makes them.
        """
        epsilon = self.config.norm_epsilon
        by_group = [
            [ForwardContext(positions, of_group, cosine, sine, epsilon) for cosine, sine in self._tables]
            for of_group in (slots if slots.dim() == 2 else (slots,))
        ]
        groups = self.groups.group_of_layer if len(by_group) > 1 else (0,) * len(self._layers)
        contexts = [by_group[group][table] for group, table in zip(groups, self._table_of_layer, strict=True)]
        hidden = F.embedding(tokens, self.weights.embedding)
        if self._embedding_scale != 1.0:
            hidden.mul_(self._embedding_scale)
        delta: torch.Tensor | None = None
        device = Device(self._operations, self._native)
        for layer, context, layout, layer_pages in zip(self._layers, contexts, layouts, pages, strict=True):
            delta = layer(hidden, delta, context=context, layout=layout, pages=layer_pages, device=device)
        return self._operations.add_and_normalise(hidden, delta, self.weights.norm, epsilon)

    def logits(self, hidden: torch.Tensor) -> torch.Tensor:
        """Logits, float32 `[num_rows, vocabulary]`, of hidden states `[num_rows, hidden]`."""
        return self._scaled(self._unembed(hidden).float())

    def logits_of(self, hidden: torch.Tensor, tokens: list[int]) -> torch.Tensor:
        """Logits of these tokens only: float32 `[num_rows, len(tokens)]`, of hidden states `[num_rows, hidden]`."""
        matrix = self.weights.unembedding
        if matrix.is_meta:  # the matrix was laid out anew, so single rows cannot be taken from it
            return self.logits(hidden)[:, tokens]
        return self._scaled(F.linear(hidden, matrix[tokens]).float())

    def _scaled(self, logits: torch.Tensor) -> torch.Tensor:
        divisor, cap = self.config.scales.logit_divisor, self.config.scales.logit_cap
        if divisor != 1.0:
            logits.div_(divisor)
        return logits.div_(cap).tanh_().mul_(cap) if cap else logits


def _without_packed(weights: Weights, layers: Series[Layer], unembed: Linear) -> Weights:
    """Weights in which the matrices that `linear` laid out anew keep only their shapes, so that none is held twice.

    A tied embedding is the exception: it is needed as it is.
    """
    unembedding = weights.unembedding
    if unembedding is not weights.embedding:
        unembedding = kept_weight(unembedding, unembed)
    return replace(weights, layers=tuple(layer.weights for layer in layers), unembedding=unembedding)


def _operations(config: ModelConfig, device: torch.device, native: NativeOperations | None) -> Operations:
    if device.type == "cuda":
        return FusedOperations(config.activation)
    if native is None or config.activation != "silu" or config.family.centred:  # which C does not know
        return TorchOperations(config.activation)
    return native


def _native(config: ModelConfig, dtype: torch.dtype, device: torch.device) -> NativeOperations | None:
    if device.type != "cpu":
        return None
    widths = [config.hidden_size, config.intermediate_size]
    if config.mixture is not None:
        widths.append(config.mixture.expert_size)
    return native_operations(dtype, config.head_dim, *widths)
