"""A step in integers, kept from step to step."""

from __future__ import annotations

from array import array
from collections.abc import Callable
from collections.abc import Sequence as Series
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ponder_worker.engine.scheduling.step_plan import Chunks

Integers = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Shape:
    """lengths, ends: of the chunks, `[num_chunks]`; row_ends: where each one's rows end in the step. positions, slots:
    of the rows, `[num_tokens]`; a slot of -1 is not written.

    table: places of pages, `[num_chunks, max_pages]`, padded with each one's first: what stands there is masked.
    tokens_read: `[num_chunks]`, keys of its context, a page's divided among the chunks that read it in this step.
    goes_on: does every chunk follow on one of the step before, in its order, with one token?
    """

    lengths: Integers
    ends: Integers
    row_ends: Integers
    positions: Integers
    slots: Integers
    table: Integers
    tokens_read: npt.NDArray[np.float64]
    goes_on: bool


class InputBatch:
    """Of one step after the other: where sequences only go on, what is new is looked at and nothing else."""

    def __init__(self, page_size: int, places: Callable[[Integers], Integers]) -> None:
        """places: where pages stand, by their numbers."""
        self._page_size = page_size
        self._places = places
        # of the step before
        self._tables: list[array[int]] = []
        self._ends: list[int] = []
        self._table = np.zeros((0, 0), dtype=np.int64)
        self._read = np.zeros(0)

    def of(self, chunks: Chunks) -> Shape:
        starts, ends, write_from = np.array([chunks.starts, chunks.ends, chunks.write_from], dtype=np.int64)
        tables = [sequence.table.pages for sequence in chunks.sequences]
        lengths = ends - starts
        goes_on = chunks.starts == self._ends and tables == self._tables and bool((lengths == 1).all())
        # A token below write_from stands in a page that others may read; all else that is new, in a page of its own.
        if goes_on and bool((starts >= write_from).all()):
            row_ends, positions = np.arange(1, len(starts) + 1), starts
            slots = self._go_on(tables, starts)
        else:
            self._begin(tables, ends)
            row_ends = lengths.cumsum()
            rows = np.arange(len(starts)).repeat(lengths)
            positions = np.arange(len(rows)) + (ends - row_ends)[rows]
            slots = self._table[rows, positions // self._page_size] * self._page_size + positions % self._page_size
            slots[positions < write_from[rows]] = -1
        self._tables, self._ends = tables, chunks.ends
        return Shape(lengths, ends, row_ends, positions, slots, self._table, self._read, goes_on)

    def _begin(self, tables: Series[array[int]], ends: Integers) -> None:
        pages = np.frombuffer(b"".join(tables), dtype=np.int32)
        counts = np.array([len(table) for table in tables])
        first = counts.cumsum() - counts
        table = pages[first].astype(np.int64)[:, None].repeat(counts.max(), axis=1)
        table[np.arange(table.shape[1]) < counts[:, None]] = pages
        self._table = self._places(table)
        shares = np.zeros(len(pages) + 1)  # of all pages before, what falls to one reader
        np.cumsum(1 / np.bincount(pages)[pages], out=shares[1:])
        num_full = (ends - 1) // self._page_size
        last = first + num_full
        self._read = (shares[last] - shares[first]) * self._page_size
        self._read += (shares[last + 1] - shares[last]) * (ends - num_full * self._page_size)

    def _go_on(self, tables: Series[array[int]], starts: Integers) -> Integers:
        """-> the slot of each one's token. The steps before are done with `_table`."""
        self._read = self._read + 1
        columns, offsets = starts // self._page_size, starts % self._page_size
        if len(new := np.flatnonzero(offsets == 0)):
            if (missing := columns[new].max() + 1 - self._table.shape[1]) > 0:
                self._table = np.concatenate([self._table, self._table[:, :1].repeat(missing, axis=1)], axis=1)
            pages = [tables[row][column] for row, column in zip(new.tolist(), columns[new].tolist(), strict=True)]
            self._table[new, columns[new]] = self._places(np.array(pages))
        slots: Integers = self._table[np.arange(len(starts)), columns] * self._page_size + offsets
        return slots
