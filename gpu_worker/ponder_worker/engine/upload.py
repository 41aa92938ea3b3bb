"""Numbers on their way to the device."""

from typing import Any

import torch


def upload(values: Any, device: torch.device, dtype: torch.dtype | None = None) -> torch.Tensor:
    """Waits for nothing that the device has to do: `torch.tensor(values, device=device)` would, for all of it."""
    return torch.as_tensor(values, dtype=dtype).to(device, non_blocking=True)
