"""Runs a step's tensors: builds the inputs, calls the model, samples."""

from itertools import compress
from typing import Any

import numpy as np
import torch

from ponder_worker.engine.device_upload import upload
from ponder_worker.engine.kv.kv_storage import KVStorage
from ponder_worker.engine.sampling.sampler import Sampler
from ponder_worker.engine.sequence import Sequence
from ponder_worker.engine.step.graph import Decode, DecodeGraphs
from ponder_worker.engine.step.input_batch import InputBatch, StepInputs
from ponder_worker.engine.step.pending_step import PendingStep
from ponder_worker.engine.step.prompt_logprobs import HiddenStates, read, score
from ponder_worker.engine.step.sampled_rows import SampledRows
from ponder_worker.engine.step_plan import Chunks, StepPlan
from ponder_worker.models.transformer import Transformer


class Runner:
    """Runs the steps of one model in order. A step may be launched before the one before it has ended."""

    def __init__(
        self, model: Transformer, storage: KVStorage, *, page_size: int, graphs: DecodeGraphs | None = None
    ) -> None:
        """Makes a runner. graphs: replay steps in which every row only decodes; None: nothing is replayed."""
        self.model = model
        self._storage = storage
        self._graphs = graphs
        self._batch = InputBatch(page_size, storage.places_of)
        self._sampler = Sampler(model.config.vocabulary_size, model.device)
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
        only_decodes = len(self._rows.sequences) == len(tokens) and not self._rows.metadata.edited
        if only_decodes and self._graphs is not None and self._graphs.is_usable:
            self._replay(self._graphs, tokens, inputs, pending)
        else:
            self._compute(chunks, tokens, inputs, pending)
        pending.close()
        return pending

    def _replay(self, graphs: DecodeGraphs, tokens: torch.Tensor, inputs: StepInputs, pending: PendingStep) -> None:
        """Computes and samples a whole step with one launch."""
        table = inputs.table.astype(np.int32)
        decode = Decode(tokens, inputs.positions, inputs.slots, table, self._rows.metadata.samplings)
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
        self._sampled = self._sampler.sample(logits, self._rows.metadata, positions, edits)
        pending.add_tokens(indices.tolist(), self._sampled, self._sampler.logprobs(logits, self._sampled))

    def _tensor(self, values: Any) -> torch.Tensor:
        return upload(values, self.model.device, torch.int64)
