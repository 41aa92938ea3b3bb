"""The operations between a layer's matrix products as single kernels: what a GPU runs."""

import torch

from ponder_kernels import rms_norm, swiglu, write_qkv
from ponder_worker.models.operations import Norms
from ponder_worker.models.pages import Pages
from ponder_worker.models.step import Step


class Fused:
    """`Operations`, each one pass over its numbers."""

    def add_and_normalise(
        self, hidden: torch.Tensor, delta: torch.Tensor | None, weight: torch.Tensor, epsilon: float
    ) -> torch.Tensor:
        return rms_norm.op(hidden, weight, epsilon) if delta is None else rms_norm.op(delta, weight, epsilon, hidden)

    def rotate_and_write(self, fused: torch.Tensor, pages: Pages, step: Step, norms: Norms) -> torch.Tensor:
        num_kv_heads, head_dim = pages.numbers.shape[2], pages.numbers.shape[4]
        heads = fused.view(len(fused), -1, head_dim)
        rotation = write_qkv.Rotation(step.positions, step.cosine, step.sine, *norms, epsilon=step.epsilon)
        write_qkv.op(heads, rotation, pages.numbers, step.slots, pages.scales)
        return heads[:, : heads.shape[1] - 2 * num_kv_heads]

    def gate(self, both: torch.Tensor) -> torch.Tensor:
        return swiglu.op(both)
