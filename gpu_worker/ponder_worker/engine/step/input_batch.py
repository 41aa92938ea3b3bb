"""The inputs of a step in integers, updated from step to step."""

from __future__ import annotations

from array import array
from collections.abc import Callable
from collections.abc import Sequence as Series
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ponder_worker.engine.step_plan import Chunks

Integers = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class StepInputs:
    """The inputs of the model in one step, besides the tokens.

    lengths, ends: `[num_chunks]`, as in the plan. row_ends: `[num_chunks]`, the end of each chunk's rows in the step.
    positions, slots: `[num_tokens]`; a row whose slot is -1 writes no keys and values.
    table: `[num_chunks, max_pages]`, the places of each chunk's pages, padded with its first, which is masked there.
    tokens_read: `[num_chunks]`, the keys that it reads; those of a page are divided among its readers in this step.
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

    def __init__(self, page_size: int, places_of: Callable[[Integers], Integers]) -> None:
        """Starts with no former step. places_of: returns where pages are in memory, by their numbers."""
        self._page_size = page_size
        self._places_of = places_of
        # These belong to the step before.
        self._tables: list[array[int]] = []
        self._ends: list[int] = []
        self._table = np.zeros((0, 0), dtype=np.int64)
        self._tokens_read = np.zeros(0)

    def update(self, chunks: Chunks) -> StepInputs:
        """Returns the inputs of the next step."""
        starts, ends, write_from = np.array([chunks.starts, chunks.ends, chunks.write_from], dtype=np.int64)
        tables = [sequence.table.pages for sequence in chunks.sequences]
        lengths = ends - starts
        continues = chunks.starts == self._ends and tables == self._tables and bool((lengths == 1).all())
        # A token below write_from is in a page that others may read. All others are in pages of their own.
        if continues and bool((starts >= write_from).all()):
            row_ends, positions = np.arange(1, len(starts) + 1), starts
            slots = self._advance(tables, starts)
        else:
            self._rebuild(tables, ends)
            row_ends = lengths.cumsum()
            rows = np.arange(len(starts)).repeat(lengths)
            positions = np.arange(len(rows)) + (ends - row_ends)[rows]
            slots = self._table[rows, positions // self._page_size] * self._page_size + positions % self._page_size
            slots[positions < write_from[rows]] = -1
        self._tables, self._ends = tables, chunks.ends
        return StepInputs(lengths, ends, row_ends, positions, slots, self._table, self._tokens_read, continues)

    def _rebuild(self, tables: Series[array[int]], ends: Integers) -> None:
        """Makes table and tokens_read anew."""
        pages = np.frombuffer(b"".join(tables), dtype=np.int32)
        counts = np.array([len(table) for table in tables])
        first = counts.cumsum() - counts
        table = pages[first].astype(np.int64)[:, None].repeat(counts.max(), axis=1)
        table[np.arange(table.shape[1]) < counts[:, None]] = pages
        self._table = self._places_of(table)
        shares = np.zeros(len(pages) + 1)  # cumulative: the share that one reader has of each page
        np.cumsum(1 / np.bincount(pages)[pages], out=shares[1:])
        num_full = (ends - 1) // self._page_size
        last = first + num_full
        self._tokens_read = (shares[last] - shares[first]) * self._page_size
        self._tokens_read += (shares[last + 1] - shares[last]) * (ends - num_full * self._page_size)

    def _advance(self, tables: Series[array[int]], starts: Integers) -> Integers:
        """Adds one token to each row. Returns the tokens' slots.

        It may change `_table` in place, as the steps before no longer need it.
        """
        self._tokens_read = self._tokens_read + 1
        columns, offsets = starts // self._page_size, starts % self._page_size
        if len(new := np.flatnonzero(offsets == 0)):
            if (missing := columns[new].max() + 1 - self._table.shape[1]) > 0:
                self._table = np.concatenate([self._table, self._table[:, :1].repeat(missing, axis=1)], axis=1)
            pages = [tables[row][column] for row, column in zip(new.tolist(), columns[new].tolist(), strict=True)]
            self._table[new, columns[new]] = self._places_of(np.array(pages))
        slots: Integers = self._table[np.arange(len(starts)), columns] * self._page_size + offsets
        return slots
