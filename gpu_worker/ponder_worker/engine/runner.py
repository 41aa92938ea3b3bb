"""The tensors of a step: builds the inputs, calls the model, samples."""

from collections.abc import Sequence as Series
from typing import Any

import numpy as np
import torch

from ponder_worker.engine.flight import Flight
from ponder_worker.engine.grading import logprobs, read, score
from ponder_worker.engine.graph import Decode, Graphs
from ponder_worker.engine.plan import Chunk, Plan
from ponder_worker.engine.sampler import Draw, Sampler
from ponder_worker.engine.sampling import Sampling
from ponder_worker.engine.sequence import Sequence
from ponder_worker.engine.shape import Integers, Shape
from ponder_worker.engine.storage import Storage
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
        self._row_of: dict[Sequence, int] = {}  # in it

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
        if self._graphs is not None and all(map(_decodes, chunks)):
            self._replay(self._graphs, chunks, shape, flight)
            return flight
        hidden = self._forward(chunks, shape)
        row_ends = np.cumsum(shape.ends - shape.starts)
        self._sample(chunks, hidden, row_ends, flight)
        if any(chunk.sequence.sampling is None for chunk in chunks):
            score(self.model, chunks, hidden, row_ends, flight)
            read(self.model, chunks, hidden, row_ends, flight)
        flight.depart()
        return flight

    def _forward(self, chunks: Series[Chunk], shape: Shape) -> torch.Tensor:
        """-> hidden states of the step, `[num_tokens, hidden]`"""
        page_size = self._page_size
        lengths = shape.ends - shape.starts
        row_starts = np.cumsum(lengths) - lengths
        num_tokens = int(lengths.sum())
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
        samplings = [chunk.sequence.sampling for chunk in chunks if chunk.sequence.sampling is not None]
        decode = Decode(self._tokens(chunks), shape.starts, slots, table.astype(np.int32), samplings)
        self._sampled, found = graphs.run(decode)
        self._row_of = {chunk.sequence: row for row, chunk in enumerate(chunks)}
        flight.add_tokens(range(len(chunks)), self._sampled, found)
        flight.depart()

    def _tokens(self, chunks: Series[Chunk]) -> torch.Tensor:
        """`[num_tokens]`; those that the step before samples never leave the device."""
        tokens: list[int] = []
        rows: list[int] = []
        sources: list[int] = []
        for chunk in chunks:
            tokens += chunk.sequence.tokens[chunk.start : chunk.end]
            if chunk.end > len(chunk.sequence.tokens):
                rows.append(len(tokens))
                sources.append(self._row_of[chunk.sequence])
                tokens.append(0)
        known = self._tensor(tokens)
        if rows:
            known[self._tensor(rows)] = self._sampled[self._tensor(sources)]
        return known

    def _sample(self, chunks: Series[Chunk], hidden: torch.Tensor, row_ends: Integers, flight: Flight) -> None:
        indices: list[int] = []
        draws: list[Draw] = []
        for index, chunk in enumerate(chunks):
            sampling = chunk.sequence.sampling
            if chunk.samples and sampling is not None:
                indices.append(index)
                draws.append(_draw(chunk.sequence, sampling, chunk.end))
        self._row_of = {chunks[index].sequence: row for row, index in enumerate(indices)}
        if not indices:
            return
        logits = self.model.logits(hidden[self._tensor(row_ends[indices] - 1)])
        self._sampled = self._sampler.sample(logits, draws)
        flight.add_tokens(indices, self._sampled, logprobs(logits, self._sampled))

    def _tensor(self, values: Any) -> torch.Tensor:
        return torch.as_tensor(values, dtype=torch.int64).to(self.model.device, non_blocking=True)


def _decodes(chunk: Chunk) -> bool:
    """One token, and the next is drawn from its logits as they are."""
    sampling = chunk.sequence.sampling
    if sampling is None or not chunk.samples or chunk.end - chunk.start != 1:
        return False
    return not (sampling.penalises or sampling.min_tokens or sampling.logit_bias)


def _draw(sequence: Sequence, sampling: Sampling, position: int) -> Draw:
    """What the choice of the sequence's next token depends on."""
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
