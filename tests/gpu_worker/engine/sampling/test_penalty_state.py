"""Counts that are kept from step to step against counts made anew."""

from array import array
from collections import Counter

import pytest
import torch

from ponder_worker.engine.sampling.penalty_state import PenaltyStates
from ponder_worker.engine.sampling.sampling_params import SamplingParams
from ponder_worker.engine.sequence import Sequence

VOCABULARY = 50
CPU = torch.device("cpu")


def counted_anew(logits: torch.Tensor, sequence: Sequence) -> torch.Tensor:
    sampling, line = sequence.sampling, logits.clone()
    assert sampling is not None
    seen = torch.tensor(list({*sequence.tokens}))
    factor = sampling.repetition_penalty
    line[seen] = torch.where(line[seen] < 0, line[seen] * factor, line[seen] / factor)
    for token, count in Counter(sequence.generated).items():
        line[token] -= torch.tensor(sampling.frequency_penalty * count + sampling.presence_penalty)
    return line


@pytest.mark.parametrize(
    "penalties",
    [{"presence_penalty": 0.7}, {"frequency_penalty": 0.3, "presence_penalty": -0.1}, {"repetition_penalty": 1.3}],
)
@pytest.mark.parametrize("preempted_at", [None, 5])
def test_every_step_finds_the_logits_of_all_tokens_so_far(
    penalties: dict[str, float], preempted_at: int | None
) -> None:
    chance, tallies = torch.Generator().manual_seed(1), PenaltyStates(VOCABULARY, CPU)
    sequence = Sequence([3, 3, 8, 1, 2], 3, SamplingParams(40, **penalties))  # type: ignore[arg-type]
    for step in range(30):
        if step != preempted_at:
            sequence.table.pages = array("i", [0])
        logits = torch.randn(VOCABULARY, generator=chance)
        expected = counted_anew(logits, sequence)
        tallies.of(sequence).penalise(logits)
        assert torch.equal(logits, expected)
        sequence.append(int(torch.randint(VOCABULARY, (1,), generator=chance)), 0.0)
        if step == preempted_at:
            tallies.settle()
            assert tallies.of(sequence).num_counted == step + 3


def test_of_those_that_ended_nothing_is_kept() -> None:
    tallies = PenaltyStates(VOCABULARY, CPU)
    sequences = [Sequence([1, 2], 1, SamplingParams(9, presence_penalty=0.5)) for _ in range(2)]
    sequences[0].table.pages = array("i", [0])
    kept, dropped = (tallies.of(sequence) for sequence in sequences)
    tallies.settle()
    assert tallies.of(sequences[0]) is kept
    assert tallies.of(sequences[1]) is not dropped
