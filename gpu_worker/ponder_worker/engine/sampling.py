"""How the next token is chosen, with noise that depends on (seed, position, token id) and on nothing else."""

from collections.abc import Sequence as Series
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from ponder_worker.engine.errors import InvalidSampling

# lowbias32 (https://nullprogram.com/blog/2018/07/31/); the second factor is 0x846CA68B as int32.
_FACTORS = (0x7FEB352D, 0x846CA68B - (1 << 32))
_TOKEN_STRIDE = 0x9E3779B9 - (1 << 32)


@dataclass(frozen=True, slots=True)
class Sampling:
    """One sequence's sampling parameters; raises InvalidSampling for a value out of range.

    temperature 0 is greedy. Filters apply in the order of transformers: temperature, top_k, top_p, min_p; 0, 1 and 0
    switch them off. Penalties (OpenAI's) and stop strings look at generated tokens only. max_tokens counts from the
    prompt's end. A stop token is kept as the sequence's last; the model's end tokens are stop tokens unless
    `stop_at_end` is False. seed: 64 bits.
    """

    max_tokens: int
    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    stop_token_ids: frozenset[int] = frozenset()
    stop_strings: tuple[str, ...] = ()
    stop_at_end: bool = True
    seed: int = 0

    def __post_init__(self) -> None:
        for name, right, wanted in (
            ("max_tokens", self.max_tokens >= 1, "at least 1"),
            ("temperature", 0.0 <= self.temperature < float("inf"), "0 or more"),
            ("top_k", self.top_k >= 0, "0 (off) or more"),
            ("top_p", 0.0 < self.top_p <= 1.0, "above 0 and at most 1"),
            ("min_p", 0.0 <= self.min_p <= 1.0, "0 to 1"),
            ("presence_penalty", -2.0 <= self.presence_penalty <= 2.0, "-2 to 2"),
            ("frequency_penalty", -2.0 <= self.frequency_penalty <= 2.0, "-2 to 2"),
            ("stop_strings", all(self.stop_strings), "strings that are not empty"),
            ("seed", 0 <= self.seed < 1 << 64, "an unsigned 64-bit integer"),
        ):
            if not right:
                raise InvalidSampling(f"{name} is {getattr(self, name)!r}; it must be {wanted}")

    @property
    def filters(self) -> bool:
        return self.temperature > 0 and (self.top_k > 0 or self.top_p < 1.0 or self.min_p > 0.0)

    @property
    def penalises(self) -> bool:
        return self.presence_penalty != 0.0 or self.frequency_penalty != 0.0


@dataclass(frozen=True, slots=True)
class Draw:
    """One row to sample: the parameters, the position of the token to come, and the tokens generated so far.

    `generated` may be left empty where nothing penalises.
    """

    sampling: Sampling
    position: int
    generated: Series[int] = ()


class Sampler:
    """Chooses tokens for the rows of a step."""

    def __init__(self, vocabulary_size: int, device: torch.device) -> None:
        tokens = torch.arange(vocabulary_size, dtype=torch.int32, device=device)
        self._token_hash = tokens * _TOKEN_STRIDE
        self._device = device

    def sample(self, logits: torch.Tensor, draws: Series[Draw]) -> torch.Tensor:
        """logits: float32 `[num_rows, vocabulary]`, unchanged -> token ids `[num_rows]` int64"""
        samplings = [draw.sampling for draw in draws]
        temperature = np.array([sampling.temperature for sampling in samplings], dtype=np.float32)
        if any(sampling.penalises for sampling in samplings):
            logits = self._penalised(logits, draws)
        if not temperature.any():
            return logits.argmax(dim=-1)
        greedy = temperature == 0
        heat = torch.from_numpy(np.where(greedy, np.float32(1), temperature)).to(self._device)
        scores = logits / heat[:, None]
        filtered = [row for row, sampling in enumerate(samplings) if sampling.filters]
        if filtered:
            scores[filtered] = _filtered(scores[filtered], [samplings[row] for row in filtered])
        noise = self.noise([sampling.seed for sampling in samplings], [draw.position for draw in draws])
        if greedy.any():
            noise *= torch.from_numpy(~greedy).to(self._device)[:, None]
        return scores.add_(noise).argmax(dim=-1)

    def noise(self, seeds: Series[int], positions: Series[int]) -> torch.Tensor:
        """Standard Gumbel noise, finite, `[num_rows, vocabulary]` float32; row i of (seeds[i], positions[i]).

        The argmax of logits + noise is a draw from softmax(logits): https://arxiv.org/abs/1611.01144.
        """
        key = _mix(np.array(seeds, dtype=np.uint64) ^ _mix(np.array(positions, dtype=np.uint64)))
        halves = torch.from_numpy(key.view(np.int32).reshape(-1, 2)).to(self._device)
        bits = _scramble(self._token_hash + halves[:, :1])
        bits = _scramble(bits.bitwise_xor_(halves[:, 1:]))
        # 31 bits, half a unit above zero: an exponential's small values, which win the race, keep all of them.
        uniform = (bits.bitwise_and_(0x7FFFFFFF).float() + 0.5).mul_(2.0**-31).clamp_(max=1 - 2.0**-24)
        return uniform.neg_().log1p_().neg_().log_().neg_()

    def _penalised(self, logits: torch.Tensor, draws: Series[Draw]) -> torch.Tensor:
        """OpenAI's: logit - frequency_penalty * count - presence_penalty * (count > 0), over generated tokens."""
        rows = [row for row, draw in enumerate(draws) if draw.sampling.penalises and draw.generated]
        if not rows:
            return logits
        lengths = torch.tensor([len(draws[row].generated) for row in rows])
        place = torch.repeat_interleave(torch.arange(len(rows)), lengths).to(self._device)
        tokens = torch.tensor([token for row in rows for token in draws[row].generated], device=self._device)
        counts = torch.zeros(len(rows), logits.shape[1], device=self._device)
        counts.index_put_((place, tokens), torch.ones((), device=self._device), accumulate=True)
        frequency = torch.tensor([[draws[row].sampling.frequency_penalty] for row in rows], device=self._device)
        presence = torch.tensor([[draws[row].sampling.presence_penalty] for row in rows], device=self._device)
        logits = logits.clone()
        logits[rows] -= counts * frequency + (counts > 0) * presence
        return logits


def _mix(x: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    """splitmix64: https://prng.di.unimi.it/splitmix64.c"""
    x = x + np.uint64(0x9E3779B97F4A7C15)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def _scramble(x: torch.Tensor) -> torch.Tensor:
    """lowbias32 over int32, in place; the masks make torch's arithmetic shifts logical ones."""
    x ^= (x >> 16).bitwise_and_(0xFFFF)
    x *= _FACTORS[0]
    x ^= (x >> 15).bitwise_and_(0x1FFFF)
    x *= _FACTORS[1]
    x ^= (x >> 16).bitwise_and_(0xFFFF)
    return x


def _filtered(scores: torch.Tensor, samplings: Series[Sampling]) -> torch.Tensor:
    """-inf where a row's top_k, top_p or min_p leaves a token out; ties at the threshold stay in.

    Only as many candidates are sorted as the rows need, not the vocabulary.
    """
    vocabulary = scores.shape[1]
    device = scores.device
    top_k = torch.tensor([[s.top_k or vocabulary] for s in samplings], device=device).clamp_(max=vocabulary)
    top_p = torch.tensor([[s.top_p] for s in samplings], device=device)
    min_p = torch.tensor([[s.min_p] for s in samplings], device=device)
    num_candidates = min(vocabulary, max([64, *(s.top_k for s in samplings)]))
    while True:
        best = scores.topk(num_candidates, dim=-1).values
        inside = torch.arange(num_candidates, device=device) < top_k
        # top_p is taken of what top_k left; where that is everything, of the whole vocabulary.
        total = torch.where(
            top_k < vocabulary,
            best.masked_fill(~inside, float("-inf")).logsumexp(-1, keepdim=True),
            scores.logsumexp(-1, keepdim=True),
        )
        before = (best - total).exp().cumsum(-1) - (best - total).exp()
        inside &= before < top_p
        ended = ~inside[:, -1:] | (top_k <= num_candidates) | (top_p >= 1)
        if num_candidates == vocabulary or bool(ended.all()):
            break
        num_candidates = min(vocabulary, 8 * num_candidates)
    threshold = best.masked_fill(~inside, float("inf")).amin(-1, keepdim=True)
    threshold.masked_fill_((top_p >= 1) & (top_k >= vocabulary), float("-inf"))
    threshold = torch.maximum(threshold, best[:, :1] + min_p.log())
    return scores.masked_fill(scores < threshold, float("-inf"))
