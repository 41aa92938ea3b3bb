"""The tensors of a step: builds the inputs, calls the model, samples."""

from collections.abc import Sequence as Series
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from ponder_worker.engine.plan import Chunk, Plan, Result
from ponder_worker.engine.sampler import Draw, Sampler
from ponder_worker.engine.sampling import Sampling
from ponder_worker.engine.sequence import Sequence
from ponder_worker.models.readout import Readout
from ponder_worker.models.transformer import Transformer

Integers = npt.NDArray[np.int64]

_SCORED_ROWS = 512  # a scored prefill's logits are made in pieces: rows x vocabulary float32 would not fit at once


@dataclass(frozen=True, slots=True)
class Shape:
    """A step in integers. starts, ends, page_counts: `[num_chunks]`; pages: all page tables, one behind the other."""

    starts: Integers
    ends: Integers
    page_counts: Integers
    pages: Integers

    @classmethod
    def of(cls, chunks: Series[Chunk]) -> "Shape":
        tables = [chunk.sequence.table.pages for chunk in chunks]
        return cls(
            starts=np.array([chunk.start for chunk in chunks], dtype=np.int64),
            ends=np.array([chunk.end for chunk in chunks], dtype=np.int64),
            page_counts=np.array([len(table) for table in tables], dtype=np.int64),
            pages=np.frombuffer(b"".join(tables), dtype=np.int32).astype(np.int64),
        )

    def page_table(self) -> Integers:
        """`[num_chunks, max_pages]`, padded with page 0: what stands there is masked."""
        taken = np.arange(self.page_counts.max()) < self.page_counts[:, None]
        table = np.zeros(taken.shape, dtype=np.int64)
        table[taken] = self.pages
        return table

    def tokens_read(self, page_size: int) -> npt.NDArray[np.float64]:
        """`[num_chunks]`: keys of its context, a page's divided among the chunks that read it in this step."""
        first = np.cumsum(self.page_counts) - self.page_counts
        index = np.arange(len(self.pages)) - np.repeat(first, self.page_counts)
        used = np.clip(np.repeat(self.ends, self.page_counts) - index * page_size, 0, page_size)
        readers = np.bincount(self.pages)[self.pages]
        return np.add.reduceat(used / readers, first)


class Runner:
    """Owns the keys and values."""

    def __init__(self, model: Transformer, *, num_pages: int, page_size: int) -> None:
        self.model = model
        self._page_size = page_size
        self._pages = model.new_pages(num_pages, page_size)
        self._sampler = Sampler(model.config.vocabulary_size, model.device)

    @torch.inference_mode()
    def run(self, plan: Plan) -> Result:
        chunks = plan.chunks
        if not chunks:
            return Result([], [], [])
        if plan.copies:
            source, target = self._tensor(plan.copies).T
            self._pages[:, target] = self._pages[:, source]
        shape = Shape.of(chunks)
        hidden = self._forward(chunks, shape)
        row_ends = np.cumsum(shape.ends - shape.starts)
        tokens: list[int | None] = [None] * len(chunks)
        logprobs: list[list[float]] = [[] for _ in chunks]
        self._sample(chunks, hidden, row_ends, tokens, logprobs)
        if any(chunk.sequence.sampling is None for chunk in chunks):
            self._score(chunks, hidden, row_ends, logprobs)
            self._read(chunks, hidden, row_ends, logprobs)
        read = shape.tokens_read(self._page_size) * self.model.kv_bytes_per_token
        return Result(tokens, logprobs, read.tolist())

    def _forward(self, chunks: Series[Chunk], shape: Shape) -> torch.Tensor:
        """-> hidden states of the step, `[num_tokens, hidden]`"""
        page_size = self._page_size
        lengths = shape.ends - shape.starts
        tokens: list[int] = []
        for chunk in chunks:
            tokens += chunk.sequence.tokens[chunk.start : chunk.end]
        row_starts = np.cumsum(lengths) - lengths
        positions = np.arange(len(tokens)) + np.repeat(shape.starts - row_starts, lengths)
        table = shape.page_table()
        slots = table[np.repeat(np.arange(len(chunks)), lengths), positions // page_size] * page_size
        slots += positions % page_size
        write_from = np.array([chunk.write_from for chunk in chunks], dtype=np.int64)
        slots[positions < np.repeat(write_from, lengths)] = -1
        where = self.model.layouts(
            torch.from_numpy(lengths), torch.from_numpy(shape.ends), torch.from_numpy(table), self._pages
        )
        return self.model.forward(
            self._tensor(np.array(tokens, dtype=np.int64)),
            self._tensor(positions),
            self._tensor(slots),
            where,
            self._pages,
        )

    def _sample(
        self,
        chunks: Series[Chunk],
        hidden: torch.Tensor,
        row_ends: Integers,
        tokens: list[int | None],
        logprobs: list[list[float]],
    ) -> None:
        """Fills in the next token of every chunk that reaches the end of its sequence."""
        indices: list[int] = []
        draws: list[Draw] = []
        for index, chunk in enumerate(chunks):
            sequence = chunk.sequence
            if sequence.sampling is not None and chunk.end == len(sequence.tokens):
                indices.append(index)
                draws.append(_draw(sequence, sequence.sampling))
        if not indices:
            return
        logits = self.model.logits(hidden[self._tensor(row_ends[indices] - 1)])
        chosen = self._sampler.sample(logits, draws)
        chosen_logprobs = self._sampler.logprobs(logits, chosen).tolist()
        for index, token, logprob in zip(indices, chosen.tolist(), chosen_logprobs, strict=True):
            tokens[index], logprobs[index] = token, [logprob]

    def _score(
        self, chunks: Series[Chunk], hidden: torch.Tensor, row_ends: Integers, logprobs: list[list[float]]
    ) -> None:
        """Fills in the log-probabilities of known tokens, from those rows that come before a token to be scored."""
        rows: list[int] = []
        targets: list[int] = []
        scored: list[tuple[int, int]] = []
        for index, chunk in enumerate(chunks):
            sequence = chunk.sequence
            if (
                sequence.sampling is None
                and not sequence.marks
                and (first := max(chunk.start, sequence.first_needed)) < chunk.end
            ):
                end = int(row_ends[index])
                rows += range(end - (chunk.end - first), end)
                targets += sequence.tokens[first + 1 : chunk.end + 1]
                scored.append((index, chunk.end - first))
        found: list[float] = []
        for piece in range(0, len(rows), _SCORED_ROWS):
            logits = self.model.logits(hidden[self._tensor(rows[piece : piece + _SCORED_ROWS])])
            found += self._sampler.logprobs(logits, self._tensor(targets[piece : piece + _SCORED_ROWS])).tolist()
        place = 0
        for index, count in scored:
            logprobs[index] = found[place : place + count]
            place += count

    def _read(
        self, chunks: Series[Chunk], hidden: torch.Tensor, row_ends: Integers, logprobs: list[list[float]]
    ) -> None:
        """Fills in what is read at those marks that the chunks reach."""
        rows: dict[Readout, list[tuple[int, int]]] = {}
        for index, chunk in enumerate(chunks):
            readout = chunk.sequence.readout
            if readout is not None:
                due = chunk.sequence.marks[len(chunk.sequence.readings) :]
                behind = int(row_ends[index]) - chunk.end
                rows.setdefault(readout, []).extend((index, behind + mark) for mark in due if mark < chunk.end)
        for readout, places in rows.items():
            if places:
                found = readout(self.model, hidden[self._tensor([row for _, row in places])]).tolist()
                for (index, _), value in zip(places, found, strict=True):
                    logprobs[index].append(value)

    def _tensor(self, values: Any) -> torch.Tensor:
        return torch.as_tensor(values, dtype=torch.int64).to(self.model.device, non_blocking=True)


def _draw(sequence: Sequence, sampling: Sampling) -> Draw:
    """What the choice of the sequence's next token depends on."""
    position = len(sequence.tokens)
    if not (sampling.penalises or sampling.min_tokens):
        return Draw(sampling, position)
    too_early = position - sequence.prompt_length < sampling.min_tokens
    return Draw(
        sampling,
        position,
        sequence.generated if sampling.penalises else (),
        sequence.tokens[: sequence.prompt_length] if sampling.repetition_penalty != 1.0 else (),
        tuple(sequence.stop_token_ids) if too_early else (),
    )
