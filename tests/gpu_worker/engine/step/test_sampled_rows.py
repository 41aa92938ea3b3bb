"""Penalties that are kept from step to step, against penalties that are counted anew."""

from array import array
from collections import Counter

import numpy as np
import pytest
import torch

from ponder_worker.engine.sampling.penalty_state import PenaltyState
from ponder_worker.engine.sampling.sampling_params import SamplingParams
from ponder_worker.engine.sequence import Sequence
from ponder_worker.engine.step.input_batch import SampledRows

VOCABULARY = 50
CPU = torch.device("cpu")


def penalised_anew(logits: torch.Tensor, sequence: Sequence) -> torch.Tensor:
    sampling, logits = sequence.sampling, logits.clone()
    assert sampling is not None
    seen = torch.tensor(list({*sequence.tokens}))
    factor = sampling.repetition_penalty
    logits[seen] = torch.where(logits[seen] < 0, logits[seen] * factor, logits[seen] / factor)
    for token, count in Counter(sequence.generated).items():
        logits[token] -= torch.tensor(sampling.frequency_penalty * count + sampling.presence_penalty)
    return logits


def penalties(rows: SampledRows, sequence: Sequence) -> PenaltyState:
    """Returns what a step that samples the sequence alone applies to its logits."""
    rows.update([sequence])
    state = rows.edits(np.array([len(sequence.tokens)]))[0].penalties
    assert state is not None
    return state


@pytest.mark.parametrize(
    "fields",
    [{"presence_penalty": 0.7}, {"frequency_penalty": 0.3, "presence_penalty": -0.1}, {"repetition_penalty": 1.3}],
)
@pytest.mark.parametrize("preempted_at", [None, 5])
def test_every_step_applies_the_penalties_of_all_tokens_so_far(
    fields: dict[str, float], preempted_at: int | None
) -> None:
    chance, rows = torch.Generator().manual_seed(1), SampledRows(VOCABULARY, CPU)
    sequence = Sequence([3, 3, 8, 1, 2], 3, SamplingParams(40, **fields))  # type: ignore[arg-type]
    sequence.table.pages = array("i", [0])
    for step in range(30):
        logits = torch.randn(VOCABULARY, generator=chance)
        expected = penalised_anew(logits, sequence)
        state = penalties(rows, sequence)
        state.apply(logits)
        assert torch.equal(logits, expected)
        sequence.append(int(torch.randint(VOCABULARY, (1,), generator=chance)), 0.0)
        if step == preempted_at:
            sequence.table.pages = array("i")
            rows.update([])
            again = penalties(rows, sequence)
            assert again is not state
            assert again.num_counted == step + 3
            sequence.table.pages = array("i", [0])


def test_penalties_of_sequences_without_pages_are_dropped_when_the_rows_change() -> None:
    rows = SampledRows(VOCABULARY, CPU)
    sequences = [Sequence([1, 2], 1, SamplingParams(9, presence_penalty=0.5)) for _ in range(2)]
    sequences[0].table.pages = array("i", [0])
    kept, dropped = (penalties(rows, sequence) for sequence in sequences)
    rows.update([])
    assert penalties(rows, sequences[0]) is kept
    assert penalties(rows, sequences[1]) is not dropped


def test_stop_tokens_are_banned_before_the_least_length_and_not_from_there_on() -> None:
    rows = SampledRows(VOCABULARY, CPU)
    sequence = Sequence([1, 2, 3], 2, SamplingParams(9, min_tokens=2), stop_token_ids=frozenset({7}))
    rows.update([sequence])
    assert [rows.edits(np.array([position]))[0].banned for position in (2, 3, 4)] == [(7,), (7,), ()]
