"""Runs a step's tensors: builds the inputs, calls the model, samples, and scores known tokens."""

from dataclasses import dataclass
from itertools import compress
from typing import Any

import numpy as np
import torch

from ponder_worker.engine.device_upload import upload
from ponder_worker.engine.kv.kv_storage import KVStorage
from ponder_worker.engine.sampling.grammars import TokenMasks
from ponder_worker.engine.sampling.sampler import Sampler
from ponder_worker.engine.sequence import Sequence
from ponder_worker.engine.step.graph import Decode, DecodeGraphs
from ponder_worker.engine.step.input_batch import InputBatch, Integers, SampledRows, StepInputs
from ponder_worker.engine.step.pending_step import PendingStep
from ponder_worker.engine.step_plan import Chunks, StepPlan
from ponder_worker.models.readout import Readout
from ponder_worker.models.transformer import Transformer

_ROWS_AT_ONCE = 512  # the logits of a whole prefill, rows x vocabulary in float32, would not fit in memory


class Runner:
    """Runs the steps of one model in order. A step may be launched before the one before it has ended."""

    def __init__(
        self, model: Transformer, storage: KVStorage, *, page_size: int, graphs: DecodeGraphs | None = None
    ) -> None:
        """Makes a runner. graphs: replay steps in which every row only decodes; None: nothing is replayed."""
        self.model = model
        self._storage = storage
        self._graphs = graphs
        self._batch = InputBatch(page_size, storage.places_of, model.windows_by_group)
        self._sampler = Sampler(model.config.vocabulary_size, model.device)
        self._masks = TokenMasks(model.config.vocabulary_size, model.device)
        self._rows = SampledRows(model.config.vocabulary_size, model.device)
        self._sampled = torch.empty(0, dtype=torch.int64, device=model.device)  # the rows' tokens in the latest step

    @torch.inference_mode()
    def launch(self, plan: StepPlan) -> PendingStep:
        """Starts a step. On a GPU this returns before the step is computed."""
        if plan.transfers.copies:
            self._storage.copy(plan.transfers.copies)
        if plan.transfers.returns:
            self._storage.restore(plan.transfers.returns)
        chunks = plan.chunks
        if not chunks:
            return PendingStep([])
        inputs = self._batch.update(chunks)
        pending = PendingStep((inputs.tokens_read * self.model.kv_bytes_per_token).tolist())
        tokens = self._tokens(chunks, inputs)
        self._rows.update(list(compress(chunks.sequences, chunks.samples)))
        self._masks.begin(self._rows.matchers)
        metadata = self._rows.metadata
        is_plain = not (metadata.edited or metadata.held or metadata.ranked)
        only_decodes = is_plain and len(self._rows.sequences) == len(tokens)
        if only_decodes and self._graphs is not None and self._graphs.is_usable:
            self._replay(self._graphs, tokens, inputs, pending)
        else:
            self._compute(chunks, tokens, inputs, pending)
        pending.close()
        return pending

    def _replay(self, graphs: DecodeGraphs, tokens: torch.Tensor, inputs: StepInputs, pending: PendingStep) -> None:
        """Computes and samples a whole step with one launch."""
        slots, tables = inputs.slots, inputs.table.astype(np.int32)
        slots, tables = slots.reshape(-1, slots.shape[-1]), tables.reshape(-1, *tables.shape[-2:])
        decode = Decode(tokens, inputs.positions, slots, tables, self._rows.metadata.samplings)
        self._sampled, logprobs = graphs.run(decode)
        pending.add_tokens(range(len(inputs.ends)), self._sampled, logprobs)

    def _compute(self, chunks: Chunks, tokens: torch.Tensor, inputs: StepInputs, pending: PendingStep) -> None:
        """Computes a step, samples its rows, and scores the chunks that are not sampled."""
        hidden = self._forward(tokens, inputs)
        if self._rows.sequences:
            self._sample(chunks, hidden, inputs, pending)
        if len(self._rows.sequences) < len(chunks):
            states = HiddenStates(chunks, hidden, inputs.row_ends)
            score(self.model, self._sampler, states, pending)
            read(self.model, states, pending)

    def _forward(self, tokens: torch.Tensor, inputs: StepInputs) -> torch.Tensor:
        """Returns the hidden states of the step, `[num_tokens, hidden]`."""
        lengths, ends, table = map(torch.from_numpy, (inputs.lengths, inputs.ends, inputs.table))
        layouts = self.model.layouts(lengths, ends, table, self._storage.pages)
        positions, slots = self._tensor(inputs.positions), self._tensor(inputs.slots)
        return self.model.forward(tokens, positions, slots, layouts, self._storage.pages)

    def _tokens(self, chunks: Chunks, inputs: StepInputs) -> torch.Tensor:
        """Returns the step's tokens, `[num_tokens]`. Those that the step before samples never leave the device."""
        if inputs.continues and chunks.sequences == self._rows.sequences:
            return self._sampled
        tokens: list[int] = []
        unknown: list[tuple[int, Sequence]] = []
        for sequence, start, end, _, _ in chunks:
            tokens += sequence.tokens[start:end]
            if end > len(sequence.tokens):
                unknown.append((len(tokens), sequence))
                tokens.append(0)
        known = self._tensor(tokens)
        if unknown:
            row_of = {sequence: row for row, sequence in enumerate(self._rows.sequences)}
            targets, sources = zip(*((index, row_of[sequence]) for index, sequence in unknown), strict=True)
            known[self._tensor(targets)] = self._sampled[self._tensor(sources)]
        return known

    def _sample(self, chunks: Chunks, hidden: torch.Tensor, inputs: StepInputs, pending: PendingStep) -> None:
        """Samples a token for each chunk that ends with one."""
        indices = np.flatnonzero(chunks.samples)
        positions = inputs.ends[indices]
        edits = self._rows.edits(positions)
        if len(indices) < len(hidden):
            hidden = hidden[self._tensor(inputs.row_ends[indices] - 1)]
        logits = self.model.logits(hidden)
        self._sampled = self._sampler.sample(logits, self._rows.metadata, positions, edits, self._masks.take())
        pending.add_tokens(indices.tolist(), self._sampled, self._sampler.logprobs(logits, self._sampled))
        if ranked := self._rows.metadata.ranked:
            samplings = self._rows.metadata.samplings
            wanted = [(int(indices[row]), samplings[row].top_logprobs) for row in ranked]
            some = logits if len(ranked) == len(logits) else logits[self._tensor(ranked)]
            pending.add_tops(wanted, *self._sampler.top_logprobs(some, max(num for _, num in wanted)))

    def _tensor(self, values: Any) -> torch.Tensor:
        return upload(values, self.model.device, torch.int64)


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
