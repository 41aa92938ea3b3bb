"""Chooses the next token of each row."""

from collections.abc import Mapping
from collections.abc import Sequence as Series

import numpy as np
import numpy.typing as npt
import torch

from ponder_kernels import sample
from ponder_worker.engine.device_upload import upload
from ponder_worker.engine.sampling.noise import Noise, keys
from ponder_worker.engine.sampling.sampling_metadata import (
    LogitEdits,
    SamplingMetadata,
    kernel_choice,
    kernel_columns,
)
from ponder_worker.engine.sampling.sampling_params import SamplingParams
from ponder_worker.models.native.native_sampler import native_sampler


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
    ) -> torch.Tensor:
        """Returns token ids, int64 `[num_rows]`.

        logits: float32 `[num_rows, vocabulary]`, left unchanged. positions: of the tokens to sample, `[num_rows]`.
        edits: for each row of `metadata.edited`.
        """
        if edits:
            logits = self._edited(logits, metadata, edits)
        if not metadata.temperature.any():
            return logits.argmax(dim=-1)
        if self._device.type == "cuda":
            return self.by_kernel(logits, metadata, positions)
        temperatures = metadata.temperature
        if metadata.filtered:
            logits, temperatures = self._filtered(logits, metadata)
        temperature = torch.from_numpy(temperatures).to(self._device)
        if self._choice is not None:
            return self._choice.draw(logits, temperature, keys(metadata.seeds, positions))
        drawn = (temperature > 0)[:, None]
        scores = logits / torch.where(drawn, temperature[:, None], 1.0)
        return scores.add_(self.noise(metadata.seeds, positions).mul_(drawn)).argmax(dim=-1)

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
