"""The optimizers: Muon for the matrices inside the layers, AdamW for the embeddings and the norms."""

from collections import defaultdict
from collections.abc import Iterable

import torch
from torch import Tensor, nn


class Muon:
    """Momentum with orthogonalised updates (Jordan et al. 2024, kellerjordan.github.io/posts/muon).

    The update's size is matched to AdamW's as in arXiv:2502.16982: 0.2 * sqrt(larger side). Matrices of one shape
    are orthogonalised together.
    """

    def __init__(self, matrices: Iterable[nn.Parameter], lr: float, momentum: float, weight_decay: float) -> None:
        groups: dict[tuple[int, ...], list[nn.Parameter]] = defaultdict(list)
        for matrix in matrices:
            groups[tuple(sorted(matrix.shape))].append(matrix)
        self.groups = list(groups.values())
        self.velocities = [[torch.zeros_like(matrix) for matrix in group] for group in self.groups]
        self.lr, self.momentum, self.weight_decay = lr, momentum, weight_decay

    @torch.no_grad()
    def step(self, scale: float) -> None:
        """Apply and clear the gradients, with the learning rate `lr` * `scale`."""
        lr = self.lr * scale
        for group, velocities in zip(self.groups, self.velocities, strict=True):
            gradients = [matrix.grad for matrix in group if matrix.grad is not None]
            torch._foreach_lerp_(velocities, gradients, 1 - self.momentum)
            ahead = torch._foreach_lerp(gradients, velocities, self.momentum)
            # Matrices are made wide, so that the products inside have the size of the smaller side.
            wide = [update if update.shape[0] <= update.shape[1] else update.T for update in ahead]
            updates = orthogonalised(torch.stack(wide))
            for matrix, update in zip(group, updates, strict=True):
                turned = update if matrix.shape[0] <= matrix.shape[1] else update.T
                matrix.mul_(1 - lr * self.weight_decay).add_(turned, alpha=-lr * 0.2 * max(matrix.shape) ** 0.5)
                matrix.grad = None


def orthogonalised(matrices: Tensor, num_steps: int = 5) -> Tensor:
    """Approximate the nearest semi-orthogonal matrices. matrices: `[count, rows, columns]`, rows <= columns.

    The method is a Newton-Schulz iteration of the fifth order, with the coefficients of the page above.
    """
    a, b, c = 3.4445, -4.7750, 2.0315
    x: Tensor = (matrices / (matrices.norm(dim=(1, 2), keepdim=True) + 1e-7)).bfloat16()
    for _ in range(num_steps):
        gram = x @ x.mT
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x.float()


class Optimizer:
    """Both optimizers of a model, on the same schedule."""

    def __init__(self, model: nn.Module, muon_lr: float, adam_lr: float) -> None:
        named = list(model.named_parameters())
        matrices = [p for name, p in named if p.ndim == 2 and "embed" not in name]
        others = [p for name, p in named if p.ndim != 2 or "embed" in name]
        self.muon = Muon(matrices, muon_lr, momentum=0.95, weight_decay=0.01)
        self.adam_lr = adam_lr
        self.adam = torch.optim.AdamW(others, lr=adam_lr, betas=(0.9, 0.95), weight_decay=0.0)

    def step(self, scale: float) -> None:
        """Apply and clear the gradients, with all learning rates multiplied by `scale`."""
        self.adam.param_groups[0]["lr"] = self.adam_lr * scale
        self.adam.step()
        self.adam.zero_grad()
        self.muon.step(scale)
