"""What all layers of a step share."""

from dataclasses import dataclass

import torch


@dataclass(frozen=True, slots=True)
class Step:
    """positions, slots: `[num_tokens]` int64; cosine, sine: float32 `[context_tokens, head_dim / 2]`.

    epsilon: of all norms.
    """

    positions: torch.Tensor
    slots: torch.Tensor
    cosine: torch.Tensor
    sine: torch.Tensor
    epsilon: float
