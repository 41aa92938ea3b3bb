"""What tokens that are known are worth: their log-probabilities, or what a reward model reads at marks."""

from collections.abc import Sequence as Series

import torch

from ponder_worker.engine.flight import Flight
from ponder_worker.engine.plan import Chunk
from ponder_worker.engine.shape import Integers
from ponder_worker.models.readout import Readout
from ponder_worker.models.transformer import Transformer

_SCORED_ROWS = 512  # a scored prefill's logits are made in pieces: rows x vocabulary float32 would not fit at once


def score(model: Transformer, chunks: Series[Chunk], hidden: torch.Tensor, row_ends: Integers, flight: Flight) -> None:
    """Log-probabilities of known tokens, from those rows that come before a token to be scored.

    hidden: `[num_tokens, hidden]`; row_ends: `[num_chunks]`, where each chunk's rows end.
    """
    rows: list[int] = []
    targets: list[int] = []
    owners: list[int] = []
    for index, chunk in enumerate(chunks):
        sequence = chunk.sequence
        if sequence.sampling is not None or sequence.marks:
            continue
        if (first := max(chunk.start, sequence.first_needed)) < chunk.end:
            end = int(row_ends[index])
            rows += range(end - (chunk.end - first), end)
            targets += sequence.tokens[first + 1 : chunk.end + 1]
            owners += [index] * (chunk.end - first)
    for piece in range(0, len(rows), _SCORED_ROWS):
        part = slice(piece, piece + _SCORED_ROWS)
        logits = model.logits(hidden[_tensor(rows[part], hidden)])
        flight.add_values(owners[part], logprobs(logits, _tensor(targets[part], hidden)))


def read(model: Transformer, chunks: Series[Chunk], hidden: torch.Tensor, row_ends: Integers, flight: Flight) -> None:
    """What is read at those marks that the chunks reach. Arguments: as `score`."""
    rows: dict[Readout, list[int]] = {}
    owners: dict[Readout, list[int]] = {}
    for index, chunk in enumerate(chunks):
        sequence = chunk.sequence
        if sequence.readout is not None:
            behind = int(row_ends[index]) - chunk.end
            # A mark below the chunk's start is being read by a step that is still under way.
            due = [m for m in sequence.marks[len(sequence.readings) :] if chunk.start <= m < chunk.end]
            rows.setdefault(sequence.readout, []).extend(behind + mark for mark in due)
            owners.setdefault(sequence.readout, []).extend([index] * len(due))
    for readout, found in rows.items():
        if found:
            flight.add_values(owners[readout], readout(model, hidden[_tensor(found, hidden)]))


def logprobs(logits: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
    """Of one token a row: `[num_rows, vocabulary]`, `[num_rows]` -> `[num_rows]`, before temperature and filters."""
    return logits.gather(1, tokens[:, None])[:, 0] - logits.logsumexp(-1)


def _tensor(values: list[int], beside: torch.Tensor) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.int64).to(beside.device, non_blocking=True)
