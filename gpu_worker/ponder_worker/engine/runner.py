"""The tensors of a step: builds the inputs, calls the model, samples."""

from collections.abc import Sequence as Series
from typing import Any

import numpy as np
import torch

from ponder_worker.engine.flight import Flight
from ponder_worker.engine.grading import Rows, read, score
from ponder_worker.engine.graph import Decode, Graphs
from ponder_worker.engine.plan import Chunk, Plan
from ponder_worker.engine.sampler import Crew, Draw, Sampler
from ponder_worker.engine.sequence import Sequence
from ponder_worker.engine.shape import Shape
from ponder_worker.engine.storage import Storage
from ponder_worker.engine.tally import Tallies
from ponder_worker.models.transformer import Transformer


class Runner:
    """Steps of one model, one after the other. A step may be launched before the one before it has landed."""

    def __init__(self, model: Transformer, storage: Storage, *, page_size: int, graphs: Graphs | None = None) -> None:
        """graphs: for steps in which every row only decodes."""
        self.model = model
        self._storage = storage
        self._graphs = graphs
        self._page_size = page_size
        self._sampler = Sampler(model.config.vocabulary_size, model.device)
        self._sampled = torch.empty(0, dtype=torch.int64, device=model.device)  # by the step launched last
        self._tallies = Tallies(model.config.vocabulary_size, model.device)
        self._drawn: list[Sequence] = []  # whose tokens they are
        self._crew = Crew([])

    @torch.inference_mode()
    def launch(self, plan: Plan) -> Flight:
        """On a GPU this returns before the step is computed."""
        if plan.copies:
            self._storage.copy(plan.copies)
        if plan.returns:
            self._storage.fetch(plan.returns)
        chunks = plan.chunks
        if not chunks:
            return Flight([])
        shape = Shape.of(chunks)
        kv_bytes_read = shape.tokens_read(self._page_size) * self.model.kv_bytes_per_token
        flight = Flight(kv_bytes_read.tolist())
        if self._graphs is not None and self._graphs.is_usable and all(map(_decodes, chunks)):
            self._replay(self._graphs, chunks, shape, flight)
            return flight
        hidden = self._forward(chunks, shape)
        self._sample(chunks, hidden, shape, flight)
        if any(chunk.sequence.sampling is None for chunk in chunks):
            step = Rows(chunks, hidden, shape.row_ends)
            score(self.model, self._sampler, step, flight)
            read(self.model, step, flight)
        flight.depart()
        return flight

    def _forward(self, chunks: Series[Chunk], shape: Shape) -> torch.Tensor:
        """-> hidden states of the step, `[num_tokens, hidden]`"""
        page_size = self._page_size
        lengths = shape.ends - shape.starts
        row_starts = shape.row_ends - lengths
        num_tokens = int(shape.row_ends[-1])
        positions = np.arange(num_tokens) + np.repeat(shape.starts - row_starts, lengths)
        table = self._storage.places(shape.page_table())
        slots = table[np.repeat(np.arange(len(chunks)), lengths), positions // page_size] * page_size
        slots += positions % page_size
        write_from = np.array([chunk.write_from for chunk in chunks], dtype=np.int64)
        slots[positions < np.repeat(write_from, lengths)] = -1
        where = self.model.layouts(
            torch.from_numpy(lengths), torch.from_numpy(shape.ends), torch.from_numpy(table), self._storage.pages
        )
        return self.model.forward(
            self._tokens(chunks), self._tensor(positions), self._tensor(slots), where, self._storage.pages
        )

    def _replay(self, graphs: Graphs, chunks: Series[Chunk], shape: Shape, flight: Flight) -> None:
        """The whole step, by one launch."""
        table = self._storage.places(shape.page_table())
        slots = table[np.arange(len(chunks)), shape.starts // self._page_size] * self._page_size
        slots += shape.starts % self._page_size
        slots[shape.starts < np.array([chunk.write_from for chunk in chunks], dtype=np.int64)] = -1
        tokens = self._tokens(chunks)
        self._take([chunk.sequence for chunk in chunks])
        decode = Decode(tokens, shape.starts, slots, table.astype(np.int32), self._crew.samplings)
        self._sampled, found = graphs.run(decode)
        flight.add_tokens(range(len(chunks)), self._sampled, found)
        flight.depart()

    def _tokens(self, chunks: Series[Chunk]) -> torch.Tensor:
        """`[num_tokens]`; those that the step before samples never leave the device."""
        tokens: list[int] = []
        unseen: list[tuple[int, Sequence]] = []
        for sequence, start, end, _, _ in chunks:
            tokens += sequence.tokens[start:end]
            if end > len(sequence.tokens):
                unseen.append((len(tokens), sequence))
                tokens.append(0)
        known = self._tensor(tokens)
        if unseen:
            row_of = {sequence: row for row, sequence in enumerate(self._drawn)}
            rows, sources = zip(*((place, row_of[sequence]) for place, sequence in unseen), strict=True)
            known[self._tensor(rows)] = self._sampled[self._tensor(sources)]
        return known

    def _sample(self, chunks: Series[Chunk], hidden: torch.Tensor, shape: Shape, flight: Flight) -> None:
        indices = [index for index, chunk in enumerate(chunks) if chunk.samples]
        if not indices:
            self._drawn = []
            return
        self._take([chunks[index].sequence for index in indices])
        positions = shape.ends[indices]
        draws = {row: self._draw(self._drawn[row], int(positions[row])) for row in self._crew.looking}
        logits = self.model.logits(hidden[self._tensor(shape.row_ends[indices] - 1)])
        self._sampled = self._sampler.sample(logits, self._crew, positions, draws)
        flight.add_tokens(indices, self._sampled, self._sampler.logprobs(logits, self._sampled))

    def _take(self, drawn: list[Sequence]) -> None:
        """These are the rows that the step samples."""
        if drawn != self._drawn:
            self._drawn = drawn
            self._tallies.settle()
            self._crew = Crew([sequence.sampling for sequence in drawn if sequence.sampling is not None])

    def _draw(self, sequence: Sequence, position: int) -> Draw:
        """For the token that is to come there."""
        sampling = sequence.sampling
        assert sampling is not None
        too_early = position - sequence.prompt_length < sampling.min_tokens
        return Draw(
            self._tallies.of(sequence) if sampling.penalises else None,
            tuple(sequence.stop_token_ids) if too_early else (),
        )

    def _tensor(self, values: Any) -> torch.Tensor:
        return torch.as_tensor(values, dtype=torch.int64).to(self.model.device, non_blocking=True)


def _decodes(chunk: Chunk) -> bool:
    """One token, and the next is drawn from its logits as they are."""
    sampling = chunk.sequence.sampling
    if sampling is None or not chunk.samples or chunk.end - chunk.start != 1:
        return False
    return not (sampling.changes or sampling.min_tokens)
