"""The tensors of a step: builds the inputs, calls the model, samples."""

from collections.abc import Sequence as Series
from itertools import compress
from typing import Any

import numpy as np
import torch

from ponder_worker.engine.kv.kv_storage import Storage
from ponder_worker.engine.sampling.penalty_state import PenaltyStates
from ponder_worker.engine.sampling.sampler import LogitEdits, Sampler, SamplingMetadata
from ponder_worker.engine.scheduling.step_plan import Chunks, Plan
from ponder_worker.engine.sequence import Sequence
from ponder_worker.engine.step.graph import Decode, Graphs
from ponder_worker.engine.step.input_batch import InputBatch, Integers, Shape
from ponder_worker.engine.step.pending_step import PendingStep
from ponder_worker.engine.step.prompt_logprobs import Rows, read, score
from ponder_worker.engine.upload import upload
from ponder_worker.models.transformer import Transformer


class Runner:
    """Steps of one model, one after the other. A step may be launched before the one before it has landed."""

    def __init__(self, model: Transformer, storage: Storage, *, page_size: int, graphs: Graphs | None = None) -> None:
        """graphs: for steps in which every row only decodes."""
        self.model = model
        self._storage = storage
        self._graphs = graphs
        self._shapes = InputBatch(page_size, storage.places)
        self._sampler = Sampler(model.config.vocabulary_size, model.device)
        self._sampled = torch.empty(0, dtype=torch.int64, device=model.device)  # by the step launched last
        self._tallies = PenaltyStates(model.config.vocabulary_size, model.device)
        self._drawn: Series[Sequence] = []  # whose tokens they are
        self._crew = SamplingMetadata([])

    @torch.inference_mode()
    def launch(self, plan: Plan) -> PendingStep:
        """On a GPU this returns before the step is computed."""
        if plan.copies:
            self._storage.copy(plan.copies)
        if plan.returns:
            self._storage.fetch(plan.returns)
        chunks = plan.chunks
        if not chunks:
            return PendingStep([])
        shape = self._shapes.of(chunks)
        flight = PendingStep((shape.tokens_read * self.model.kv_bytes_per_token).tolist())
        tokens = self._tokens(chunks, shape)
        self._take(list(compress(chunks.sequences, chunks.samples)))
        # Every row decodes, and the next token is drawn from its logits as they are.
        only_decodes = len(self._drawn) == len(tokens) and not self._crew.looking
        if only_decodes and self._graphs is not None and self._graphs.is_usable:
            self._replay(self._graphs, tokens, shape, flight)
            return flight
        hidden = self._forward(tokens, shape)
        if self._drawn:
            self._sample(np.flatnonzero(chunks.samples), hidden, shape, flight)
        if len(self._drawn) < len(chunks):
            step = Rows(chunks, hidden, shape.row_ends)
            score(self.model, self._sampler, step, flight)
            read(self.model, step, flight)
        flight.depart()
        return flight

    def _forward(self, tokens: torch.Tensor, shape: Shape) -> torch.Tensor:
        """-> hidden states of the step, `[num_tokens, hidden]`"""
        lengths, ends, table = map(torch.from_numpy, (shape.lengths, shape.ends, shape.table))
        where = self.model.layouts(lengths, ends, table, self._storage.pages)
        positions, slots = self._tensor(shape.positions), self._tensor(shape.slots)
        return self.model.forward(tokens, positions, slots, where, self._storage.pages)

    def _replay(self, graphs: Graphs, tokens: torch.Tensor, shape: Shape, flight: PendingStep) -> None:
        """The whole step, by one launch."""
        decode = Decode(tokens, shape.positions, shape.slots, shape.table.astype(np.int32), self._crew.samplings)
        self._sampled, found = graphs.run(decode)
        flight.add_tokens(range(len(shape.ends)), self._sampled, found)
        flight.depart()

    def _tokens(self, chunks: Chunks, shape: Shape) -> torch.Tensor:
        """`[num_tokens]`; those that the step before samples never leave the device."""
        if shape.goes_on and chunks.sequences == self._drawn:
            return self._sampled
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

    def _sample(self, indices: Integers, hidden: torch.Tensor, shape: Shape, flight: PendingStep) -> None:
        """For the chunks at `indices`."""
        positions = shape.ends[indices]
        draws = {row: self._draw(self._drawn[row], int(positions[row])) for row in self._crew.looking}
        if len(indices) < len(hidden):
            hidden = hidden[self._tensor(shape.row_ends[indices] - 1)]
        logits = self.model.logits(hidden)
        self._sampled = self._sampler.sample(logits, self._crew, positions, draws)
        flight.add_tokens(indices.tolist(), self._sampled, self._sampler.logprobs(logits, self._sampled))

    def _take(self, drawn: Series[Sequence]) -> None:
        """These are the rows that the step samples."""
        if drawn != self._drawn:
            self._drawn = drawn
            self._tallies.settle()
            self._crew = SamplingMetadata([sequence.sampling for sequence in drawn if sequence.sampling is not None])

    def _draw(self, sequence: Sequence, position: int) -> LogitEdits:
        """For the token that is to come there."""
        sampling = sequence.sampling
        assert sampling is not None
        too_early = position - sequence.prompt_length < sampling.min_tokens
        return LogitEdits(
            self._tallies.of(sequence) if sampling.penalises else None,
            tuple(sequence.stop_token_ids) if too_early else (),
        )

    def _tensor(self, values: Any) -> torch.Tensor:
        return upload(values, self.model.device, torch.int64)
