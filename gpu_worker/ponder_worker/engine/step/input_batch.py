"""The inputs of a step, of the model and of the sampler, updated from step to step."""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Callable, Mapping
from collections.abc import Sequence as Series
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import torch

from ponder_worker.engine.page_table import PageTable
from ponder_worker.engine.sampling.penalty_state import PenaltyState
from ponder_worker.engine.sampling.sampling_metadata import LogitEdits, SamplingMetadata
from ponder_worker.engine.sampling.structure_matcher import StructureMatcher
from ponder_worker.engine.sequence import Sequence
from ponder_worker.engine.step_plan import Chunks

Integers = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class StepInputs:
    """The inputs of the model in one step, besides the tokens.

    lengths, ends: `[num_chunks]`, as in the plan. row_ends: `[num_chunks]`, the end of each chunk's rows in the step.
    positions, slots: `[num_tokens]`; a row whose slot is -1 writes no keys and values.
    table: `[num_chunks, max_pages]`, the places of each chunk's pages, padded with one of them, which is masked there.
    Of a model whose layers form several groups, slots and table have one entry for each group.
    tokens_read: `[num_chunks]`, the keys that it reads in a layer, on average; those of a page are divided among its
    readers in this step. Of a layer's window the page in which it begins counts in full.
    continues: whether every chunk is the next token of a chunk of the step before, in the same order.
    """

    lengths: Integers
    ends: Integers
    row_ends: Integers
    positions: Integers
    slots: Integers
    table: Integers
    tokens_read: npt.NDArray[np.float64]
    continues: bool


class InputBatch:
    """Builds the inputs of one step after another. A step that continues the one before costs only what is new."""

    def __init__(
        self,
        page_size: int,
        places_of: Callable[[Integers], Integers],
        windows: Series[Series[int | None]] = ((None,),),
        *,
        num_layers: int = 0,
    ) -> None:
        """Starts with no former step. places_of: returns where pages are in memory, by their numbers. windows: for each
        group of layers the tokens that each of its layers looks back on; None means all of them. num_layers: of the
        model, if not all are in these groups.
        """
        num_layers = num_layers or sum(map(len, windows))
        self._windows = [(window, count / num_layers) for window, count in Counter(windows[0]).items()]
        self._part = len(windows[0]) / num_layers
        self._is_windowed = any(window is not None for window in windows[0])
        self._others = [InputBatch(page_size, places_of, [each], num_layers=num_layers) for each in windows[1:]]
        self._page_size = page_size
        self._places_of = places_of
        # These belong to the step before.
        self._tables: list[array[int]] = []
        self._ends: list[int] = []
        self._dropped: list[int] = []
        self._decoded = False
        self._table = np.zeros((0, 0), dtype=np.int64)
        self._tokens_read = np.zeros(0)

    def update(self, chunks: Chunks) -> StepInputs:
        """Returns the inputs of the next step."""
        first = self._update(chunks, [sequence.table for sequence in chunks.sequences])
        if not self._others:
            return first
        others = (
            batch._update(chunks, [sequence.other_tables[index] for sequence in chunks.sequences])
            for index, batch in enumerate(self._others)
        )
        return _joined([first, *others])

    def _update(self, chunks: Chunks, page_tables: Series[PageTable]) -> StepInputs:
        """Returns the inputs of one group of layers. page_tables: `[num_chunks]`."""
        starts, ends, write_from = np.array([chunks.starts, chunks.ends, chunks.write_from], dtype=np.int64)
        tables = [table.pages for table in page_tables]
        lengths = ends - starts
        dropped = [table.num_dropped for table in page_tables]
        continues = chunks.starts == self._ends and tables == self._tables and bool((lengths == 1).all())
        # A token below write_from is in a page that others may read. All others are in pages of their own.
        # The window of several tokens, such as a prompt's, is wider than that of one.
        is_alike = dropped == self._dropped and (self._decoded or not self._is_windowed)
        if continues and is_alike and bool((starts >= write_from).all()):
            row_ends, positions = np.arange(1, len(starts) + 1), starts
            slots = self._advance(tables, starts)
        else:
            self._rebuild(tables, (starts, ends), np.array(dropped))
            row_ends = lengths.cumsum()
            rows = np.arange(len(starts)).repeat(lengths)
            positions = np.arange(len(rows)) + (ends - row_ends)[rows]
            slots = self._table[rows, positions // self._page_size] * self._page_size + positions % self._page_size
            slots[positions < write_from[rows]] = -1
        self._tables, self._ends, self._dropped = tables, chunks.ends, dropped
        self._decoded = bool((lengths == 1).all())
        return StepInputs(lengths, ends, row_ends, positions, slots, self._table, self._tokens_read, continues)

    def _rebuild(self, tables: Series[array[int]], chunks: tuple[Integers, Integers], dropped: Integers) -> None:
        """Makes table and tokens_read anew. chunks: starts and ends. dropped: `[num_chunks]`, pages at the front that
        each reads no more.
        """
        starts, ends = chunks
        pages = np.frombuffer(b"".join(tables), dtype=np.int32)
        counts = np.array([len(table) for table in tables])
        first = counts.cumsum() - counts
        table = pages[first].astype(np.int64)[:, None].repeat(counts.max(), axis=1)
        table[np.arange(table.shape[1]) < counts[:, None]] = pages
        self._table = self._places_of(table)
        shares = np.zeros(len(pages) + 1)  # cumulative: the share that one reader has of each page
        held = np.arange(len(pages)) - first.repeat(counts) >= dropped.repeat(counts)
        readers = np.bincount(pages, held)[pages]
        np.cumsum(held / np.maximum(readers, 1), out=shares[1:])
        num_full = (ends - 1) // self._page_size
        last = first + num_full
        self._tokens_read = self._part * (shares[last + 1] - shares[last]) * (ends - num_full * self._page_size)
        for window, part in self._windows:
            oldest = 0 if window is None else np.maximum(starts + 1 - window, 0) // self._page_size
            self._tokens_read += part * (shares[last] - shares[first + oldest]) * self._page_size

    def _advance(self, tables: Series[array[int]], starts: Integers) -> Integers:
        """Adds one token to each row. Returns the tokens' slots.

        It may change `_table` in place, as the steps before no longer need it.
        """
        for window, part in self._windows:  # one that is full loses a token for each new one
            self._tokens_read = self._tokens_read + part * (1 if window is None else starts < window)
        columns, offsets = starts // self._page_size, starts % self._page_size
        if len(new := np.flatnonzero(offsets == 0)):
            if (missing := columns[new].max() + 1 - self._table.shape[1]) > 0:
                self._table = np.concatenate([self._table, self._table[:, :1].repeat(missing, axis=1)], axis=1)
            pages = [tables[row][column] for row, column in zip(new.tolist(), columns[new].tolist(), strict=True)]
            self._table[new, columns[new]] = self._places_of(np.array(pages))
        slots: Integers = self._table[np.arange(len(starts)), columns] * self._page_size + offsets
        return slots


def _joined(groups: Series[StepInputs]) -> StepInputs:
    """Returns the inputs of a step, given those of each group of layers."""
    width = max(inputs.table.shape[1] for inputs in groups)
    tables = [np.pad(each.table, ((0, 0), (0, width - each.table.shape[1])), mode="edge") for each in groups]
    return replace(
        groups[0],
        slots=np.stack([inputs.slots for inputs in groups]),
        table=np.stack(tables),
        tokens_read=np.sum([inputs.tokens_read for inputs in groups], axis=0),
        continues=all(inputs.continues for inputs in groups),
    )


class SampledRows:
    """The sequences that the latest step samples, and what their sampling needs from step to step."""

    def __init__(self, vocabulary_size: int, device: torch.device) -> None:
        self.sequences: Series[Sequence] = []
        self.metadata = SamplingMetadata([])
        self._vocabulary_size = vocabulary_size
        self._device = device
        self._penalties: dict[Sequence, PenaltyState] = {}
        self.matchers: Mapping[int, StructureMatcher] = {}
        """The matchers of the rows that are held to a structure."""

    def update(self, sequences: Series[Sequence]) -> None:
        """Takes the sequences of a new step.

        Penalties of sequences without pages are dropped: these have ended, or are counted again when they go on.
        """
        if sequences == self.sequences:
            return
        self.sequences = sequences
        self.metadata = SamplingMetadata([s.sampling for s in sequences if s.sampling is not None])
        self._penalties = {sequence: state for sequence, state in self._penalties.items() if sequence.table.pages}
        matchers = ((row, sequences[row].matcher) for row in self.metadata.held)
        self.matchers = {row: matcher for row, matcher in matchers if matcher is not None}

    def edits(self, positions: Integers) -> dict[int, LogitEdits]:
        """Returns the edits of the rows that need any. positions: `[num_rows]`, of the tokens to sample."""
        return {row: self._edits_of(self.sequences[row], int(positions[row])) for row in self.metadata.edited}

    def _edits_of(self, sequence: Sequence, position: int) -> LogitEdits:
        sampling = sequence.sampling
        assert sampling is not None
        too_early = position - sequence.prompt_length < sampling.min_tokens
        too_early = too_early or (sequence.matcher is not None and sequence.matcher.is_free)
        return LogitEdits(
            self._penalties_of(sequence) if sampling.penalises else None,
            # A model's folder may name end tokens that its vocabulary does not have.
            tuple(token for token in sequence.stop_token_ids if token < self._vocabulary_size) if too_early else (),
        )

    def _penalties_of(self, sequence: Sequence) -> PenaltyState:
        """Returns the penalties of all tokens that the sequence's text has by now."""
        sampling, start = sequence.sampling, sequence.turn_start
        assert sampling is not None
        state = self._penalties.get(sequence)
        if state is None:
            state = PenaltyState(sampling, sequence.tokens[:start], self._vocabulary_size, self._device)
            self._penalties[sequence] = state
        state.count(sequence.tokens[start + state.num_counted :])
        return state
