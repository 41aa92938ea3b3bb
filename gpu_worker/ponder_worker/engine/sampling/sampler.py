"""How the next token is chosen."""

from collections.abc import Mapping
from collections.abc import Sequence as Series
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from ponder_kernels import sample
from ponder_worker.engine.sampling.choice import choice_of, columns_of
from ponder_worker.engine.sampling.filters import filtered
from ponder_worker.engine.sampling.noise import Noise, keys
from ponder_worker.engine.sampling.penalty_state import PenaltyState
from ponder_worker.engine.sampling.sampling_params import SamplingParams
from ponder_worker.engine.upload import upload
from ponder_worker.models.native.choice import choice


class LogitEdits(NamedTuple):
    """What changes a row's logits beside its sampling's bias: the tokens so far, where they are penalised, and `banned`
    ids that must not come yet.
    """

    tally: PenaltyState | None = None
    banned: Series[int] = ()


class SamplingMetadata:
    """What stays as it is from step to step while the same rows are sampled. looking: rows that need a LogitEdits."""

    def __init__(self, samplings: Series[SamplingParams]) -> None:
        self.samplings = samplings
        self.temperature = np.array([sampling.temperature for sampling in samplings], dtype=np.float32)
        self.seeds = np.array([sampling.seed for sampling in samplings], dtype=np.uint64)
        self.filtered = [row for row, sampling in enumerate(samplings) if sampling.filters]
        self.looking = [row for row, sampling in enumerate(samplings) if sampling.changes or sampling.min_tokens]


class Sampler:
    """Chooses tokens for the rows of a step."""

    def __init__(self, vocabulary_size: int, device: torch.device) -> None:
        self.noise = Noise(vocabulary_size, device)
        self._device = device
        self._choice = choice(device)

    def sample(
        self,
        logits: torch.Tensor,
        crew: SamplingMetadata,
        positions: npt.NDArray[np.int64],
        draws: Mapping[int, LogitEdits],
    ) -> torch.Tensor:
        """logits: float32 `[num_rows, vocabulary]`, unchanged; positions: of the tokens to come, `[num_rows]`; draws:
        of the rows of `crew.looking` -> token ids `[num_rows]` int64"""
        if draws:
            logits = self._penalised(logits, crew, draws)
        if not crew.temperature.any():
            return logits.argmax(dim=-1)
        if self._device.type == "cuda":
            return self.by_kernel(logits, crew, positions)
        temperature = crew.temperature
        if crew.filtered:
            logits, temperature = self._filtered(logits, crew)
        heat = torch.from_numpy(temperature).to(self._device)
        if self._choice is not None:
            return self._choice.draw(logits, heat, keys(crew.seeds, positions))
        warm = (heat > 0)[:, None]
        scores = logits / torch.where(warm, heat[:, None], 1.0)
        return scores.add_(self.noise(crew.seeds, positions).mul_(warm)).argmax(dim=-1)

    def by_kernel(self, logits: torch.Tensor, crew: SamplingMetadata, positions: npt.NDArray[np.int64]) -> torch.Tensor:
        """The same choice in one pass, in which nothing waits for the device."""
        wholes, numbers = (upload(part, self._device) for part in columns_of(crew.samplings))
        where = upload(positions, self._device)
        return sample.op(logits, choice_of((wholes[0], wholes[1]), numbers, where))[0]

    def logprobs(self, logits: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
        """Of one token a row, before temperature and filters: `[num_rows, vocabulary]`, `[num_rows]` -> `[num_rows]`"""
        if self._choice is not None:
            return self._choice.logprobs(logits, tokens)
        return logits.gather(1, tokens[:, None])[:, 0] - logits.logsumexp(-1)

    def _filtered(self, logits: torch.Tensor, crew: SamplingMetadata) -> tuple[torch.Tensor, npt.NDArray[np.float32]]:
        """Rows, none of them greedy, divided by their temperature and filtered; and what is left to divide by."""
        rows, left = crew.filtered, crew.temperature.copy()
        left[rows] = 1
        heat = torch.from_numpy(crew.temperature[rows]).to(self._device)[:, None]
        if len(rows) == len(left):
            return filtered(logits / heat, crew.samplings), left
        scores = logits.clone()
        scores[rows] = filtered(logits[rows] / heat, [crew.samplings[row] for row in rows])
        return scores, left

    def _penalised(self, logits: torch.Tensor, crew: SamplingMetadata, draws: Mapping[int, LogitEdits]) -> torch.Tensor:
        """logit + bias; then what the tokens so far take from it. Banned ids become -inf."""
        logits = logits.clone()
        for row, draw in draws.items():
            sampling, line = crew.samplings[row], logits[row]
            if sampling.logit_bias:
                tokens, biases = zip(*sampling.logit_bias, strict=True)
                line[upload(tokens, self._device)] += upload(biases, self._device, torch.float32)
            if draw.tally is not None:
                draw.tally.penalise(line)
            if draw.banned:
                line.index_fill_(0, upload(draw.banned, self._device), -torch.inf)
        return logits
