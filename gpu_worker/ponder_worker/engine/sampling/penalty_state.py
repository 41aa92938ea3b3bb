"""How a sequence's tokens so far lower its logits."""

from collections import Counter
from collections.abc import Sequence as Series

import torch

from ponder_worker.engine.device_upload import upload
from ponder_worker.engine.sampling.sampling_params import SamplingParams


class PenaltyState:
    """The counts of one sequence's tokens, kept from step to step, so that a step costs only its new tokens."""

    def __init__(
        self, sampling: SamplingParams, prompt: Series[int], vocabulary_size: int, device: torch.device
    ) -> None:
        self._sampling = sampling
        self._counts: Counter[int] = Counter()
        self._lowered = torch.zeros(vocabulary_size, device=device)
        self._seen = torch.zeros(vocabulary_size, dtype=torch.bool, device=device)
        self._seen.index_fill_(0, upload(prompt, device, torch.int64), True)
        self.num_counted = 0

    def count(self, generated: Series[int]) -> None:
        """Counts new tokens."""
        if not generated:
            return
        sampling, tokens = self._sampling, list({*generated})
        self._counts.update(generated)
        self.num_counted += len(generated)
        lowered = [sampling.frequency_penalty * self._counts[token] + sampling.presence_penalty for token in tokens]
        index = upload(tokens, self._seen.device)
        self._seen.index_fill_(0, index, True)
        self._lowered[index] = upload(lowered, self._seen.device, torch.float32)

    def apply(self, logits: torch.Tensor) -> None:
        """Penalises `[vocabulary]` in place.

        Logits of seen tokens are divided by the repetition penalty, or multiplied where they are negative. Then
        OpenAI's frequency_penalty * count + presence_penalty * (count > 0) is subtracted.
        """
        factor = self._sampling.repetition_penalty
        if factor != 1.0:
            changed = torch.where(logits < 0, logits * factor, logits / factor)
            logits.copy_(torch.where(self._seen, changed, logits))
        logits -= self._lowered
