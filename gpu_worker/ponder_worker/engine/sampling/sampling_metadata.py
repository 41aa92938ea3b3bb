"""How the rows of a step are sampled."""

from collections.abc import Sequence as Series
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from ponder_kernels import sample
from ponder_worker.engine.sampling.penalty_state import PenaltyState
from ponder_worker.engine.sampling.sampling_params import SamplingParams


class LogitEdits(NamedTuple):
    """Changes to the logits of a row before it is sampled, besides its `logit_bias`.

    penalties: None where nothing is penalised. banned: ids that must not be sampled yet.
    """

    penalties: PenaltyState | None = None
    banned: Series[int] = ()


class SamplingMetadata:
    """The sampling parameters of a step's rows, kept from step to step as long as the rows stay the same.

    filtered: rows whose choice is limited by top-k, top-p or min-p. edited: rows that need `LogitEdits`. held: rows
    that are held to a structure. ranked: rows that report their likeliest tokens.
    """

    def __init__(self, samplings: Series[SamplingParams]) -> None:
        self.samplings = samplings
        self.temperature = np.array([sampling.temperature for sampling in samplings], dtype=np.float32)
        self.seeds = np.array([sampling.seed for sampling in samplings], dtype=np.uint64)
        self.filtered = [row for row, sampling in enumerate(samplings) if sampling.filters]
        self.ranked = [row for row, sampling in enumerate(samplings) if sampling.top_logprobs]
        self.edited = [row for row, sampling in enumerate(samplings) if _needs_edits(sampling)]
        self.held = [row for row, sampling in enumerate(samplings) if sampling.structure is not None]


def _needs_edits(sampling: SamplingParams) -> bool:
    """Returns whether there may be more to change than what a structure leaves out.

    Where a thought comes before the structure, it must not be ended by an end of the text.
    """
    thinks = sampling.structure is not None and sampling.structure.close_id is not None
    return sampling.penalises or bool(sampling.logit_bias) or sampling.min_tokens > 0 or thinks


def kernel_columns(samplings: Series[SamplingParams]) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]:
    """Returns `[2, num_rows]`, the seeds' bits and top_k, and `[3, num_rows]`, temperature, top_p and min_p."""
    seeds = np.array([sampling.seed % 2**64 for sampling in samplings], dtype=np.uint64).view(np.int64)
    top_k = np.array([sampling.top_k for sampling in samplings], dtype=np.int64)
    floats = np.array([(s.temperature, s.top_p, s.min_p) for s in samplings], dtype=np.float32)
    return np.stack([seeds, top_k]), floats.reshape(-1, 3).T


def kernel_choice(
    integers: tuple[torch.Tensor, torch.Tensor], floats: torch.Tensor, positions: torch.Tensor
) -> sample.SamplingTensors:
    """Puts the columns, on the device, into the form that the kernel takes. No row is penalised.

    positions: `[num_rows]`, of the tokens to sample.
    """
    seeds, top_k = integers
    temperature, top_p, min_p = floats
    none = torch.zeros_like(temperature)
    return sample.SamplingTensors(temperature, top_k.int(), top_p, min_p, seeds, positions, none, none)
