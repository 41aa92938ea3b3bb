"""A step in integers."""

from collections.abc import Sequence as Series
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ponder_worker.engine.plan import Chunk

Integers = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Shape:
    """starts, ends, page_counts: `[num_chunks]`; row_ends: where each chunk's rows end in the step; pages: all page
    tables, one behind the other."""

    starts: Integers
    ends: Integers
    row_ends: Integers
    page_counts: Integers
    pages: Integers

    @classmethod
    def of(cls, chunks: Series[Chunk]) -> "Shape":
        tables = [chunk.sequence.table.pages for chunk in chunks]
        starts = np.array([chunk.start for chunk in chunks], dtype=np.int64)
        ends = np.array([chunk.end for chunk in chunks], dtype=np.int64)
        return cls(
            starts=starts,
            ends=ends,
            row_ends=np.cumsum(ends - starts),
            page_counts=np.array([len(table) for table in tables], dtype=np.int64),
            pages=np.frombuffer(b"".join(tables), dtype=np.int32).astype(np.int64),
        )

    def page_table(self) -> Integers:
        """`[num_chunks, max_pages]`, padded with each one's first page: what stands there is masked."""
        taken = np.arange(self.page_counts.max()) < self.page_counts[:, None]
        first = np.cumsum(self.page_counts) - self.page_counts
        table = np.repeat(self.pages[first][:, None], taken.shape[1], axis=1)
        table[taken] = self.pages
        return table

    def tokens_read(self, page_size: int) -> npt.NDArray[np.float64]:
        """`[num_chunks]`: keys of its context, a page's divided among the chunks that read it in this step."""
        first = np.cumsum(self.page_counts) - self.page_counts
        index = np.arange(len(self.pages)) - np.repeat(first, self.page_counts)
        used = np.clip(np.repeat(self.ends, self.page_counts) - index * page_size, 0, page_size)
        readers = np.bincount(self.pages)[self.pages]
        return np.add.reduceat(used / readers, first)
