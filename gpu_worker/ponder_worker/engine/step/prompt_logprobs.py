"""What tokens that are known are worth: their log-probabilities, or what a reward model reads at marks."""

from dataclasses import dataclass

import torch

from ponder_worker.engine.sampling.sampler import Sampler
from ponder_worker.engine.scheduling.step_plan import Chunks
from ponder_worker.engine.step.input_batch import Integers
from ponder_worker.engine.step.pending_step import PendingStep
from ponder_worker.engine.upload import upload
from ponder_worker.models.readout import Readout
from ponder_worker.models.transformer import Transformer

_SCORED_ROWS = 512  # a scored prefill's logits are made in pieces: rows x vocabulary float32 would not fit at once


@dataclass(frozen=True, slots=True)
class Rows:
    """What the model made of a step. hidden: `[num_tokens, hidden]`; ends: `[num_chunks]`, where each chunk's end."""

    chunks: Chunks
    hidden: torch.Tensor
    ends: Integers


def score(model: Transformer, sampler: Sampler, step: Rows, flight: PendingStep) -> None:
    """Log-probabilities of known tokens, from those rows that come before a token to be scored."""
    rows: list[int] = []
    targets: list[int] = []
    owners: list[int] = []
    for index, chunk in enumerate(step.chunks):
        sequence = chunk.sequence
        if sequence.sampling is not None or sequence.marks:
            continue
        if (first := max(chunk.start, sequence.first_needed)) < chunk.end:
            end = int(step.ends[index])
            rows += range(end - (chunk.end - first), end)
            targets += sequence.tokens[first + 1 : chunk.end + 1]
            owners += [index] * (chunk.end - first)
    for piece in range(0, len(rows), _SCORED_ROWS):
        part = slice(piece, piece + _SCORED_ROWS)
        wanted, ids = (upload(values[part], step.hidden.device, torch.int64) for values in (rows, targets))
        flight.add_values(owners[part], sampler.logprobs(model.logits(step.hidden[wanted]), ids))


def read(model: Transformer, step: Rows, flight: PendingStep) -> None:
    """What is read at those marks that the chunks reach."""
    rows: dict[Readout, list[int]] = {}
    owners: dict[Readout, list[int]] = {}
    for index, chunk in enumerate(step.chunks):
        sequence = chunk.sequence
        if sequence.readout is not None:
            behind = int(step.ends[index]) - chunk.end
            # A mark below the chunk's start is being read by a step that is still under way.
            due = [m for m in sequence.marks[len(sequence.readings) :] if chunk.start <= m < chunk.end]
            rows.setdefault(sequence.readout, []).extend(behind + mark for mark in due)
            owners.setdefault(sequence.readout, []).extend([index] * len(due))
    for readout, found in rows.items():
        if found:
            wanted = upload(found, step.hidden.device, torch.int64)
            flight.add_values(owners[readout], readout(model, step.hidden[wanted]))
