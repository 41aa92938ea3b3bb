"""Chooses the next token of each row."""

from collections.abc import Mapping
from collections.abc import Sequence as Series

import numpy as np
import numpy.typing as npt
import torch

from ponder_kernels import sample
from ponder_worker.engine.device_upload import upload
from ponder_worker.engine.sampling.sampling_metadata import (
    LogitEdits,
    SamplingMetadata,
    kernel_choice,
    kernel_columns,
)
from ponder_worker.engine.sampling.sampling_params import SamplingParams
from ponder_worker.models.native.native_operations import RowMasks, native_sampler

# lowbias32 (https://nullprogram.com/blog/2018/07/31/); the second factor is 0x846CA68B as int32.
_FACTORS = (0x7FEB352D, 0x846CA68B - (1 << 32))
_TOKEN_STRIDE = 0x9E3779B9 - (1 << 32)


class Sampler:
    """Samples the rows of a step, with a kernel on a GPU, and in C or with torch on a CPU."""

    def __init__(self, vocabulary_size: int, device: torch.device) -> None:
        self.noise = Noise(vocabulary_size, device)
        self._device = device
        self._choice = native_sampler(device)

    def sample(
        self,
        logits: torch.Tensor,
        metadata: SamplingMetadata,
        positions: npt.NDArray[np.int64],
        edits: Mapping[int, LogitEdits],
        masks: RowMasks | None = None,
    ) -> torch.Tensor:
        """Returns token ids, int64 `[num_rows]`.

        logits: float32 `[num_rows, vocabulary]`, left unchanged. positions: of the tokens to sample, `[num_rows]`.
        edits: for each row of `metadata.edited`. masks: on the device.
        """
        if edits:
            logits = self._edited(logits, metadata, edits)
        if masks is not None and (self._choice is None or metadata.filtered):
            logits, masks = self.masked(logits if edits else logits.clone(), masks), None
        if not metadata.temperature.any() and masks is None:
            return logits.argmax(dim=-1)
        if self._device.type == "cuda":
            return self.by_kernel(logits, metadata, positions)
        temperatures = metadata.temperature
        if metadata.filtered:
            logits, temperatures = self._filtered(logits, metadata)
        temperature = torch.from_numpy(temperatures).to(self._device)
        if self._choice is not None:
            return self._choice.draw(logits, temperature, keys(metadata.seeds, positions), masks)
        drawn = (temperature > 0)[:, None]
        scores = logits / torch.where(drawn, temperature[:, None], 1.0)
        return scores.add_(self.noise(metadata.seeds, positions).mul_(drawn)).argmax(dim=-1)

    def masked(self, logits: torch.Tensor, masks: RowMasks) -> torch.Tensor:
        """Sets what the masks leave out to -inf, in place. logits: float32 `[num_rows, vocabulary]`."""
        if self._choice is not None:
            self._choice.exclude(logits, masks)
            return logits
        excluded = spread(masks.bits)[:, : logits.shape[1]] == 0
        if len(masks.rows) == len(logits):
            return logits.masked_fill_(excluded, -torch.inf)
        rows = upload(masks.rows, logits.device)
        logits[rows] = logits[rows].masked_fill_(excluded, -torch.inf)
        return logits

    def by_kernel(
        self, logits: torch.Tensor, metadata: SamplingMetadata, positions: npt.NDArray[np.int64]
    ) -> torch.Tensor:
        """Makes the same choice in one pass, without waiting for the device."""
        integers, floats = (upload(columns, self._device) for columns in kernel_columns(metadata.samplings))
        where = upload(positions, self._device)
        return sample.op(logits, kernel_choice((integers[0], integers[1]), floats, where))[0]

    def logprobs(self, logits: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
        """Returns the log-probability of one token for each row, `[num_rows]`, before temperature and filters."""
        if self._choice is not None:
            return self._choice.logprobs(logits, tokens)
        return logits.gather(1, tokens[:, None])[:, 0] - logits.logsumexp(-1)

    def top_logprobs(self, logits: torch.Tensor, num: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Returns the log-probabilities and the ids of the likeliest tokens, each `[num_rows, num]`, best first.

        They are before temperature and filters, as those of `logprobs`. num: at most the vocabulary's size is used.
        """
        best, tokens = logits.topk(min(num, logits.shape[1]), dim=-1)
        return best - logits.logsumexp(-1, keepdim=True), tokens

    def _filtered(
        self, logits: torch.Tensor, metadata: SamplingMetadata
    ) -> tuple[torch.Tensor, npt.NDArray[np.float32]]:
        """Divides the filtered rows by their temperature, and filters them.

        Returns all rows, and the temperatures by which they are still to be divided.
        """
        rows, remaining = metadata.filtered, metadata.temperature.copy()
        remaining[rows] = 1
        temperature = torch.from_numpy(metadata.temperature[rows]).to(self._device)[:, None]
        if len(rows) == len(remaining):
            return filtered(logits / temperature, metadata.samplings), remaining
        scores = logits.clone()
        scores[rows] = filtered(logits[rows] / temperature, [metadata.samplings[row] for row in rows])
        return scores, remaining

    def _edited(
        self, logits: torch.Tensor, metadata: SamplingMetadata, edits: Mapping[int, LogitEdits]
    ) -> torch.Tensor:
        """Adds the bias, then applies the penalties. Banned ids become -inf."""
        logits = logits.clone()
        for index, edit in edits.items():
            sampling, row = metadata.samplings[index], logits[index]
            if sampling.logit_bias:
                tokens, biases = zip(*sampling.logit_bias, strict=True)
                row[upload(tokens, self._device)] += upload(biases, self._device, torch.float32)
            if edit.penalties is not None:
                edit.penalties.apply(row)
            if edit.banned:
                row.index_fill_(0, upload(edit.banned, self._device), -torch.inf)
        return logits


def spread(bits: torch.Tensor) -> torch.Tensor:
    """Returns one byte for each bit of uint8 `[num_rows, num_bytes]`, the lowest first."""
    places = torch.arange(8, dtype=torch.uint8, device=bits.device)
    return (bits[:, :, None] >> places).bitwise_and_(1).flatten(1)


def filtered(scores: torch.Tensor, samplings: Series[SamplingParams]) -> torch.Tensor:
    """Sets scores to -inf where a row's top_k, top_p or min_p leaves a token out; ties at the threshold stay in.

    Only as many candidates are sorted as the rows need, rather than the whole vocabulary.
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
        # top_p is a share of what top_k left: of the whole vocabulary where top_k left everything.
        total = torch.where(
            top_k < vocabulary,
            best.masked_fill(~inside, float("-inf")).logsumexp(-1, keepdim=True),
            scores.logsumexp(-1, keepdim=True),
        )
        before = (best - total).exp().cumsum(-1) - (best - total).exp()
        inside &= before < top_p
        complete = ~inside[:, -1:] | (top_k <= num_candidates) | (top_p >= 1)
        if num_candidates == vocabulary or bool(complete.all()):
            break
        num_candidates = min(vocabulary, 8 * num_candidates)
    threshold = best.masked_fill(~inside, float("inf")).amin(-1, keepdim=True)
    threshold.masked_fill_((top_p >= 1) & (top_k >= vocabulary), float("-inf"))
    threshold = torch.maximum(threshold, best[:, :1] + min_p.log())
    return scores.masked_fill(scores < threshold, float("-inf"))


class Noise:
    """Gumbel noise over one vocabulary. It depends on seed, position and token id, and on nothing else."""

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
