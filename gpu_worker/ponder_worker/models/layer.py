"""One layer of a transformer: attention, and a feed-forward part that may be a sparse mixture."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F

from ponder_kernels import expert_product
from ponder_kernels.expert_product import Routing
from ponder_worker.models import attention
from ponder_worker.models.attention import AttentionLayout
from ponder_worker.models.checkpoint.config import ModelConfig
from ponder_worker.models.checkpoint.layer_weights import LayerWeights
from ponder_worker.models.checkpoint.mixture import Mixture
from ponder_worker.models.kv_pages import Pages
from ponder_worker.models.linear import Linear, kept_weight, linear
from ponder_worker.models.native.native_operations import NativeOperations
from ponder_worker.models.operations import ForwardContext, HeadNorms, Operations, normalise_rows

_MOST_ROWS = 512  # of a step that go through the feed-forward part together on a CPU

Gate = Callable[[torch.Tensor], torch.Tensor]
"""The activation between the products of a feed-forward part, as `Operations.gate`."""


@dataclass(frozen=True, slots=True)
class Device:
    """The operations of a device. native: attention in C, or None."""

    operations: Operations
    native: NativeOperations | None


class Layer:
    """The norms and matrix products of one layer, laid out for the device that its weights are on.

    weights: the weights, of which those that were laid out anew keep only their shapes, so that none is held twice.
    """

    def __init__(self, weights: LayerWeights, config: ModelConfig, *, as_int8: bool) -> None:
        self._scales, self._epsilon = config.scales, config.norm_epsilon
        norms, kind = (weights.query_norm, weights.key_norm), config.family.query_norm
        self._head_norms: HeadNorms = norms if kind == "head" else (None, None)
        self._row_norms = [norm for norm in norms if norm is not None and kind == "row"]
        self._query_key_value = linear(weights.query_key_value, weights.query_key_value_bias, as_int8=as_int8)
        self._output = linear(weights.output, weights.output_bias, as_int8=as_int8)
        self._feed_forward = _feed_forward(weights, config.mixture, as_int8=as_int8)
        gate_up, down = self._feed_forward.kept()
        self.weights = replace(
            weights,
            query_key_value=kept_weight(weights.query_key_value, self._query_key_value),
            output=kept_weight(weights.output, self._output),
            gate_up=gate_up,
            down=down,
        )

    def __call__(
        self,
        hidden: torch.Tensor,
        delta: torch.Tensor | None,
        *,
        context: ForwardContext,
        layout: AttentionLayout,
        pages: Pages,
        device: Device,
    ) -> torch.Tensor:
        """Adds delta to hidden in place, and computes the layer. Returns what is to be added to hidden next.

        hidden, delta: `[num_rows, hidden]`.
        """
        weights, operations = self.weights, device.operations
        x = self._enter(hidden, delta, weights.attention_norm, operations)
        delta = self._attend(x, context, layout, pages, device)
        delta = self._leave(delta, weights.attention_end_norm, operations)
        x = self._enter(hidden, delta, weights.mlp_norm, operations)
        return self._leave(self._fed_forward(x, operations.gate), weights.mlp_end_norm, operations)

    def _enter(
        self, hidden: torch.Tensor, delta: torch.Tensor | None, norm: torch.Tensor | None, operations: Operations
    ) -> torch.Tensor:
        """Adds delta to hidden in place. Returns the sum, normalised if there is a norm."""
        if norm is not None:
            return operations.add_and_normalise(hidden, delta, norm, self._epsilon)
        return hidden if delta is None else hidden.add_(delta)

    def _leave(self, delta: torch.Tensor, norm: torch.Tensor | None, operations: Operations) -> torch.Tensor:
        """Returns what is to be added to the hidden states: delta, normalised if there is a norm, and scaled."""
        if norm is not None:
            delta = operations.add_and_normalise(delta, None, norm, self._epsilon)
        return delta if self._scales.residual == 1.0 else delta.mul_(self._scales.residual)

    def _attend(
        self, x: torch.Tensor, context: ForwardContext, layout: AttentionLayout, pages: Pages, device: Device
    ) -> torch.Tensor:
        scales = self._scales
        qkv = self._query_key_value(x)
        if self._row_norms:
            normalise_rows(qkv, self._row_norms, self._epsilon)
        if scales.clip:
            qkv.clamp_(-scales.clip, scales.clip)
        q = device.operations.rotate_and_write(qkv, pages, context, self._head_norms)
        mixed = attention.attend(q, pages, layout, scales.attention, device.native, soft_cap=scales.attention_cap)
        return self._output(mixed.view(len(x), -1))

    def _fed_forward(self, x: torch.Tensor, gate: Gate) -> torch.Tensor:
        """Applies the feed-forward part, on a CPU to some rows at a time.

        The values between the two products are ten times as large as the rows. In pieces they stay in the caches, and
        in memory that the allocator has at hand.
        """
        most = _MOST_ROWS if x.device.type == "cpu" else len(x)
        if len(x) <= most:
            return self._feed_forward(x, gate)
        return torch.cat([self._fed_forward(x[first : first + most], gate) for first in range(0, len(x), most)])


class _FeedForward:
    """The products of a dense layer."""

    def __init__(self, weights: LayerWeights, *, as_int8: bool) -> None:
        self._gate_up = linear(weights.gate_up, weights.gate_up_bias, as_int8=as_int8)
        self._down = linear(weights.down, weights.down_bias, as_int8=as_int8)
        self._weights = kept_weight(weights.gate_up, self._gate_up), kept_weight(weights.down, self._down)

    def __call__(self, x: torch.Tensor, gate: Gate) -> torch.Tensor:
        """Computes `[num_rows, hidden]` from rows of that shape."""
        return self._down(gate(self._gate_up(x)))

    def kept(self) -> tuple[torch.Tensor, torch.Tensor]:
        """The weights `gate_up` and `down` to keep beside the products, as `kept_weight` has them."""
        return self._weights


def _feed_forward(weights: LayerWeights, mixture: Mixture | None, *, as_int8: bool) -> "_FeedForward | Experts":
    if weights.router is None or mixture is None:
        return _FeedForward(weights, as_int8=as_int8)
    return Experts(weights, mixture, as_int8=as_int8)


class Experts:
    """The router and the experts of one layer."""

    def __init__(self, weights: LayerWeights, mixture: Mixture, *, as_int8: bool) -> None:
        """Prepares the weights for the device they are on; the router computes in their own dtype always."""
        assert weights.router is not None
        self._router, self._mixture = weights.router, mixture
        self._gate_up = _GroupedProduct(weights.gate_up, as_int8)
        self._down = _GroupedProduct(weights.down, as_int8)

    def __call__(self, x: torch.Tensor, gate: Gate) -> torch.Tensor:
        """Computes `[num_rows, hidden]` from rows of that shape."""
        weights, chosen = self._choose(x)
        routing = expert_product.route(chosen, self._mixture.num_experts)
        out = self._down(gate(self._gate_up(x, routing)), routing)
        mixed = out.view(*chosen.shape, -1).float().mul_(weights[:, :, None]).sum(1)
        return mixed.to(x.dtype)

    def kept(self) -> tuple[torch.Tensor, torch.Tensor]:
        """The weights `gate_up` and `down` to keep beside the products, as `kept_weight` has them."""
        return self._gate_up.kept, self._down.kept

    def _choose(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Weights, float32, and numbers of the experts that each row is sent to, both `[num_rows, num_chosen]`."""
        shares = F.linear(x, self._router).float().softmax(-1)
        weights, chosen = shares.topk(self._mixture.num_chosen, dim=-1)
        return weights / weights.sum(-1, keepdim=True) if self._mixture.normalised else weights, chosen


class _GroupedProduct:
    """The products of all experts: on a GPU in one kernel, elsewhere one after the other."""

    def __init__(self, weight: torch.Tensor, as_int8: bool) -> None:
        """Lays out a weight `[num_experts, out, in]`."""
        self.kept, self._num_out = weight, weight.shape[1]
        self._products: list[Linear] = []
        if weight.device.type == "cpu":
            self._products = [linear(matrix, None, as_int8=as_int8) for matrix in weight]
            self.kept = kept_weight(weight, self._products[0])

    def __call__(self, x: torch.Tensor, routing: Routing) -> torch.Tensor:
        if not self._products:
            return expert_product.op(x, self.kept, routing)
        return expert_product.each_expert(x, routing, self._num_out, self._of_expert)

    def _of_expert(self, expert: int, rows: torch.Tensor) -> torch.Tensor:
        return self._products[expert](rows)
