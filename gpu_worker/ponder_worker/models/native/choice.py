"""Drawing tokens in C, over torch's tensors on the CPU."""

import ctypes

import numpy as np
import numpy.typing as npt
import torch

from ponder_worker.models.native.library import library, num_threads

_BUSY = 1 << 16  # numbers; below, waking another thread takes longer than the work


class Choice:
    """scores and logits: float32 `[num_rows, vocabulary]` on the CPU."""

    def __init__(self, functions: ctypes.CDLL) -> None:
        self._c = functions

    def draw(self, scores: torch.Tensor, heat: torch.Tensor, keys: npt.NDArray[np.uint64]) -> torch.Tensor:
        """The largest of scores / heat + Gumbel noise; where heat is 0, of scores. heat: float32 `[num_rows]`; keys: of
        the noise, `[num_rows]` -> ids `[num_rows]`"""
        scores = scores.contiguous()
        tokens = torch.empty(len(scores), dtype=torch.int64)
        self._c.draw(
            scores.data_ptr(), *scores.shape, heat.data_ptr(), keys.ctypes.data, tokens.data_ptr(),
            num_threads(scores.numel() > _BUSY),
        )  # fmt: skip
        return tokens

    def logprobs(self, logits: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
        """Of one id a row, natural: float32 `[num_rows]`"""
        logits, tokens = logits.contiguous(), tokens.contiguous()
        found = torch.empty(len(logits))
        self._c.logprobs(
            logits.data_ptr(), *logits.shape, tokens.data_ptr(), found.data_ptr(),
            num_threads(logits.numel() > 4 * _BUSY),
        )  # fmt: skip
        return found


def choice(device: torch.device) -> Choice | None:
    """None where C cannot do it."""
    functions = library(torch.float32) if device.type == "cpu" else None
    return None if functions is None else Choice(functions)
