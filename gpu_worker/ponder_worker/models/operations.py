"""The operations between a layer's matrix products, which somebody computes for each kind of device."""

from typing import Protocol

import torch

from ponder_worker.models.pages import Pages
from ponder_worker.models.step import Step

Norms = tuple[torch.Tensor | None, torch.Tensor | None]
"""Of query and key heads, `[head_dim]`, before rotation."""


class Operations(Protocol):
    """`eager` has torch's operators, `fused` single kernels, `native` C."""

    def add_and_normalise(
        self, hidden: torch.Tensor, delta: torch.Tensor | None, weight: torch.Tensor, epsilon: float
    ) -> torch.Tensor:
        """delta is added to hidden in place; the sum's norm is returned. All `[num_rows, width]`"""

    def rotate_and_write(self, fused: torch.Tensor, pages: Pages, step: Step, norms: Norms) -> torch.Tensor:
        """Queries are rotated; keys, rotated, and values go to their slots in the pages of one layer.

        fused: `[num_rows, (num_heads + 2 * num_kv_heads) * head_dim]`, changed in place -> queries,
        `[num_rows, num_heads, head_dim]`, a view of fused
        """

    def gate(self, both: torch.Tensor) -> torch.Tensor:
        """`[num_rows, 2 * width]` -> silu of the first half times the second, `[num_rows, width]`"""
