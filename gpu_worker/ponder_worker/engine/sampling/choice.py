"""How a step's rows are sampled, as the kernel takes it."""

from collections.abc import Sequence as Series

import numpy as np
import numpy.typing as npt
import torch

from ponder_kernels import sample
from ponder_worker.engine.sampling.sampling_params import SamplingParams

__all__ = ["choice_of", "columns_of"]


def columns_of(
    samplings: Series[SamplingParams],
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]:
    """-> `[2, num_rows]` seeds, of which the bits count, and top_k; `[3, num_rows]` temperature, top_p, min_p"""
    seeds = np.array([sampling.seed % 2**64 for sampling in samplings], dtype=np.uint64).view(np.int64)
    top_k = np.array([sampling.top_k for sampling in samplings], dtype=np.int64)
    numbers = np.array([(s.temperature, s.top_p, s.min_p) for s in samplings], dtype=np.float32)
    return np.stack([seeds, top_k]), numbers.reshape(-1, 3).T


def choice_of(
    whole: tuple[torch.Tensor, torch.Tensor], numbers: torch.Tensor, positions: torch.Tensor
) -> sample.Choice:
    """whole, numbers: `columns_of`'s, on the device; positions: of the tokens to come. Nothing penalises."""
    seeds, top_k = whole
    temperature, top_p, min_p = numbers
    none = torch.zeros_like(temperature)
    return sample.Choice(temperature, top_k.int(), top_p, min_p, seeds, positions, none, none)
