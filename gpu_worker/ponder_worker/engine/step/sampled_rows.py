"""The rows of a step that are sampled."""

from collections.abc import Sequence as Series

import torch

from ponder_worker.engine.sampling.penalty_state import PenaltyState
from ponder_worker.engine.sampling.sampling_metadata import LogitEdits, SamplingMetadata
from ponder_worker.engine.sequence import Sequence
from ponder_worker.engine.step.input_batch import Integers


class SampledRows:
    """The sequences that the latest step samples, and what their sampling needs from step to step."""

    def __init__(self, vocabulary_size: int, device: torch.device) -> None:
        self.sequences: Series[Sequence] = []
        self.metadata = SamplingMetadata([])
        self._vocabulary_size = vocabulary_size
        self._device = device
        self._penalties: dict[Sequence, PenaltyState] = {}

    def update(self, sequences: Series[Sequence]) -> None:
        """Takes the sequences of a new step.

        Penalties of sequences without pages are dropped: these have ended, or are counted again when they go on.
        """
        if sequences == self.sequences:
            return
        self.sequences = sequences
        self.metadata = SamplingMetadata([s.sampling for s in sequences if s.sampling is not None])
        self._penalties = {sequence: state for sequence, state in self._penalties.items() if sequence.table.pages}

    def edits(self, positions: Integers) -> dict[int, LogitEdits]:
        """Returns the edits of the rows that need any. positions: `[num_rows]`, of the tokens to sample."""
        return {row: self._edits_of(self.sequences[row], int(positions[row])) for row in self.metadata.edited}

    def _edits_of(self, sequence: Sequence, position: int) -> LogitEdits:
        sampling = sequence.sampling
        assert sampling is not None
        too_early = position - sequence.prompt_length < sampling.min_tokens
        return LogitEdits(
            self._penalties_of(sequence) if sampling.penalises else None,
            tuple(sequence.stop_token_ids) if too_early else (),
        )

    def _penalties_of(self, sequence: Sequence) -> PenaltyState:
        """Returns the penalties of all tokens that the sequence has by now."""
        sampling, start = sequence.sampling, sequence.prompt_length
        assert sampling is not None
        state = self._penalties.get(sequence)
        if state is None:
            state = PenaltyState(sampling, sequence.tokens[:start], self._vocabulary_size, self._device)
            self._penalties[sequence] = state
        state.count(sequence.tokens[start + state.num_counted :])
        return state
