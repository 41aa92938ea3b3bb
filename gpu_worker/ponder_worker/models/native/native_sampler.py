"""Sampling of tokens in C, on torch's tensors on the CPU."""

import ctypes

import numpy as np
import numpy.typing as npt
import torch

from ponder_worker.models.native.library import library, num_threads

_BUSY = 1 << 16  # numbers; below this, waking another thread takes longer than the work


class NativeSampler:
    """Draws tokens and computes their log-probabilities. Scores and logits are float32 `[num_rows, vocabulary]`."""

    def __init__(self, functions: ctypes.CDLL) -> None:
        self._c = functions

    def draw(self, scores: torch.Tensor, temperature: torch.Tensor, keys: npt.NDArray[np.uint64]) -> torch.Tensor:
        """Token ids `[num_rows]`: in each row the largest of scores / temperature + Gumbel noise.

        temperature: float32 `[num_rows]`; 0 means no noise. keys: `[num_rows]`, the keys of the noise.
        """
        scores = scores.contiguous()
        tokens = torch.empty(len(scores), dtype=torch.int64)
        self._c.draw(
            scores.data_ptr(), *scores.shape, temperature.data_ptr(), keys.ctypes.data, tokens.data_ptr(),
            num_threads(scores.numel() > _BUSY),
        )  # fmt: skip
        return tokens

    def logprobs(self, logits: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
        """Natural log-probabilities of one token a row: float32 `[num_rows]`."""
        logits, tokens = logits.contiguous(), tokens.contiguous()
        found = torch.empty(len(logits))
        self._c.logprobs(
            logits.data_ptr(), *logits.shape, tokens.data_ptr(), found.data_ptr(),
            num_threads(logits.numel() > 4 * _BUSY),
        )  # fmt: skip
        return found


def native_sampler(device: torch.device) -> NativeSampler | None:
    """The sampler for this device; None where C is not available."""
    functions = library(torch.float32) if device.type == "cpu" else None
    return None if functions is None else NativeSampler(functions)
