"""What a sequence's tokens so far do to its logits, kept from step to step: a step costs its new tokens."""

from collections import Counter
from collections.abc import Sequence as Series

import torch

from ponder_worker.engine.sampling.sampling_params import SamplingParams
from ponder_worker.engine.sequence import Sequence
from ponder_worker.engine.upload import upload


class PenaltyState:
    """Of one sequence."""

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
        """These tokens came."""
        if not generated:
            return
        sampling, tokens = self._sampling, list({*generated})
        self._counts.update(generated)
        self.num_counted += len(generated)
        lowered = [sampling.frequency_penalty * self._counts[token] + sampling.presence_penalty for token in tokens]
        index = upload(tokens, self._seen.device)
        self._seen.index_fill_(0, index, True)
        self._lowered[index] = upload(lowered, self._seen.device, torch.float32)

    def penalise(self, logits: torch.Tensor) -> None:
        """`[vocabulary]`, in place: divided by the repetition penalty, or multiplied where it is negative; then
        OpenAI's - frequency_penalty * count - presence_penalty * (count > 0).
        """
        factor = self._sampling.repetition_penalty
        if factor != 1.0:
            changed = torch.where(logits < 0, logits * factor, logits / factor)
            logits.copy_(torch.where(self._seen, changed, logits))
        logits -= self._lowered


class PenaltyStates:
    """Of the sequences that are sampled."""

    def __init__(self, vocabulary_size: int, device: torch.device) -> None:
        self._vocabulary_size = vocabulary_size
        self._device = device
        self._tallies: dict[Sequence, PenaltyState] = {}

    def of(self, sequence: Sequence) -> PenaltyState:
        """With all tokens that the sequence knows."""
        sampling, start = sequence.sampling, sequence.prompt_length
        assert sampling is not None
        tally = self._tallies.get(sequence)
        if tally is None:
            tally = PenaltyState(sampling, sequence.tokens[:start], self._vocabulary_size, self._device)
            self._tallies[sequence] = tally
        tally.count(sequence.tokens[start + tally.num_counted :])
        return tally

    def settle(self) -> None:
        """Of those that hold no pages nothing is kept: they ended, or are counted again when they go on."""
        self._tallies = {sequence: tally for sequence, tally in self._tallies.items() if sequence.table.pages}
