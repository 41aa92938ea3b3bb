"""Noise that depends on seed, position and token id, and on nothing else."""

import numpy as np
import numpy.typing as npt
import torch

# lowbias32 (https://nullprogram.com/blog/2018/07/31/); the second factor is 0x846CA68B as int32.
_FACTORS = (0x7FEB352D, 0x846CA68B - (1 << 32))
_TOKEN_STRIDE = 0x9E3779B9 - (1 << 32)


class Noise:
    """Gumbel noise over one vocabulary."""

    def __init__(self, vocabulary_size: int, device: torch.device) -> None:
        tokens = torch.arange(vocabulary_size, dtype=torch.int32, device=device)
        self._token_hash = tokens * _TOKEN_STRIDE

    def __call__(self, seeds: npt.ArrayLike, positions: npt.ArrayLike) -> torch.Tensor:
        """Returns standard Gumbel noise, finite, float32 `[num_rows, vocabulary]`; row i for seeds[i], positions[i].

        The argmax of logits + noise is a draw from softmax(logits): https://arxiv.org/abs/1611.01144.
        """
        halves = torch.from_numpy(keys(seeds, positions).view(np.int32).reshape(-1, 2)).to(self._token_hash.device)
        bits = _scramble(self._token_hash + halves[:, :1])
        bits = _scramble(bits.bitwise_xor_(halves[:, 1:]))
        # 31 bits, half a unit above zero: the small values of an exponential, which win the race, keep all of them.
        uniform = (bits.bitwise_and_(0x7FFFFFFF).float() + 0.5).mul_(2.0**-31).clamp_(max=1 - 2.0**-24)
        return uniform.neg_().log1p_().neg_().log_().neg_()


def keys(seeds: npt.ArrayLike, positions: npt.ArrayLike) -> npt.NDArray[np.uint64]:
    """Returns one key for each row: all that its noise depends on besides the token id."""
    return _mix(np.array(seeds, dtype=np.uint64) ^ _mix(np.array(positions, dtype=np.uint64)))


def _mix(x: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    """Applies splitmix64: https://prng.di.unimi.it/splitmix64.c"""
    x = x + np.uint64(0x9E3779B97F4A7C15)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def _scramble(x: torch.Tensor) -> torch.Tensor:
    """Applies lowbias32 to int32, in place. The masks turn torch's arithmetic shifts into logical ones."""
    x ^= (x >> 16).bitwise_and_(0xFFFF)
    x *= _FACTORS[0]
    x ^= (x >> 15).bitwise_and_(0x1FFFF)
    x *= _FACTORS[1]
    x ^= (x >> 16).bitwise_and_(0xFFFF)
    return x
