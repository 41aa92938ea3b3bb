"""Scores known tokens: their log-probabilities, or what a reward model reads at marks."""

from dataclasses import dataclass

import torch

from ponder_worker.engine.device_upload import upload
from ponder_worker.engine.sampling.sampler import Sampler
from ponder_worker.engine.step.input_batch import Integers
from ponder_worker.engine.step.pending_step import PendingStep
from ponder_worker.engine.step_plan import Chunks
from ponder_worker.models.readout import Readout
from ponder_worker.models.transformer import Transformer

_ROWS_AT_ONCE = 512  # the logits of a whole prefill, rows x vocabulary in float32, would not fit in memory


@dataclass(frozen=True, slots=True)
class HiddenStates:
    """The model's output in one step.

    hidden: `[num_tokens, hidden]`. ends: `[num_chunks]`, the end of each chunk's rows.
    """

    chunks: Chunks
    hidden: torch.Tensor
    ends: Integers


def score(model: Transformer, sampler: Sampler, states: HiddenStates, pending: PendingStep) -> None:
    """Adds the log-probabilities of known tokens, each from the row before the token."""
    rows: list[int] = []
    targets: list[int] = []
    owners: list[int] = []
    for index, chunk in enumerate(states.chunks):
        sequence = chunk.sequence
        if sequence.sampling is not None or sequence.marks:
            continue
        if (first := max(chunk.start, sequence.first_needed)) < chunk.end:
            end = int(states.ends[index])
            rows += range(end - (chunk.end - first), end)
            targets += sequence.tokens[first + 1 : chunk.end + 1]
            owners += [index] * (chunk.end - first)
    for start in range(0, len(rows), _ROWS_AT_ONCE):
        part = slice(start, start + _ROWS_AT_ONCE)
        wanted, ids = (upload(values[part], states.hidden.device, torch.int64) for values in (rows, targets))
        pending.add_values(owners[part], sampler.logprobs(model.logits(states.hidden[wanted]), ids))


def read(model: Transformer, states: HiddenStates, pending: PendingStep) -> None:
    """Adds what is read at the marks that the chunks reach."""
    rows: dict[Readout, list[int]] = {}
    owners: dict[Readout, list[int]] = {}
    for index, chunk in enumerate(states.chunks):
        sequence = chunk.sequence
        if sequence.readout is not None:
            offset = int(states.ends[index]) - chunk.end
            # A mark below the chunk's start is being read by a step that is still in flight.
            due = [mark for mark in sequence.marks[len(sequence.readings) :] if chunk.start <= mark < chunk.end]
            rows.setdefault(sequence.readout, []).extend(offset + mark for mark in due)
            owners.setdefault(sequence.readout, []).extend([index] * len(due))
    for readout, marked in rows.items():
        if marked:
            wanted = upload(marked, states.hidden.device, torch.int64)
            pending.add_values(owners[readout], readout(model, states.hidden[wanted]))
