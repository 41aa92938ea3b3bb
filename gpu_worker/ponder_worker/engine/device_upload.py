"""Copies numbers from the host to the device."""

from typing import Any

import torch


def upload(values: Any, device: torch.device, dtype: torch.dtype | None = None) -> torch.Tensor:
    """Copies without waiting for the device; `torch.tensor(values, device=device)` would wait for all pending work."""
    return torch.as_tensor(values, dtype=dtype).to(device, non_blocking=True)
