"""The operations between a layer's matrix products with torch's operators."""

import torch
import torch.nn.functional as F

from ponder_kernels import rms_norm, write_kv
from ponder_worker.models.operations import Norms
from ponder_worker.models.pages import Pages
from ponder_worker.models.step import Step


class Eager:
    """`Operations` for any device and dtype."""

    def add_and_normalise(
        self, hidden: torch.Tensor, delta: torch.Tensor | None, weight: torch.Tensor, epsilon: float
    ) -> torch.Tensor:
        if delta is None:
            return rms_norm.op(hidden, weight, epsilon)
        return rms_norm.op(delta, weight, epsilon, hidden)

    def rotate_and_write(self, fused: torch.Tensor, pages: Pages, step: Step, norms: Norms) -> torch.Tensor:
        num_kv_heads, head_dim = pages.numbers.shape[2], pages.numbers.shape[4]
        heads = fused.view(len(fused), -1, head_dim)
        num_heads = heads.shape[1] - 2 * num_kv_heads
        parts = heads[:, :num_heads], heads[:, num_heads : num_heads + num_kv_heads]
        for part, norm in zip(parts, norms, strict=True):
            if norm is not None:
                part.copy_(rms_norm.op(part.reshape(-1, head_dim), norm, step.epsilon).view(part.shape))
        turns = [table[step.positions, None].to(fused.dtype) for table in (step.cosine, step.sine)]
        _rotate(heads[:, : num_heads + num_kv_heads], *turns)
        kv = heads[:, num_heads:].view(len(fused), 2, num_kv_heads, head_dim)
        write_kv.op(kv, pages.numbers, step.slots, pages.scales)
        return parts[0]

    def gate(self, both: torch.Tensor) -> torch.Tensor:
        first, second = both.chunk(2, dim=-1)
        return F.silu(first).mul_(second)


def _rotate(heads: torch.Tensor, cosine: torch.Tensor, sine: torch.Tensor) -> None:
    """Rotary positions in place (https://arxiv.org/abs/2104.09864), halves as Hugging Face pairs them.

    heads: `[num_tokens, num_heads, head_dim]`; cosine, sine: `[num_tokens, 1, head_dim / 2]`
    """
    half = heads.shape[-1] // 2
    first, second = heads[..., :half], heads[..., half:]
    rotated = first * cosine - second * sine
    second.mul_(cosine).add_(first * sine)
    first.copy_(rotated)
