"""Page tables of searches: sequences that fork from each other."""

import numpy as np
import numpy.typing as npt

from ponder_kernels.attention.attention_plan import Plan, plan

Integers = npt.NDArray[np.int64]
PAGE = 16


class Tree:
    """Sequences that fork from each other as a search does: whole pages are shared, others copied."""

    def __init__(self) -> None:
        self.sequences: list[tuple[list[int], int]] = []
        self._pages = 0

    def add(self, length: int, parent: int | None = None) -> int:
        """A sequence of so many tokens more than its parent's."""
        pages, tokens = self.sequences[parent] if parent is not None else ([], 0)
        kept = pages[: tokens // PAGE]
        total = tokens + length
        fresh = -(-total // PAGE) - len(kept)
        self.sequences.append((kept + list(range(self._pages, self._pages + fresh)), total))
        self._pages += fresh
        return len(self.sequences) - 1

    def grow(self, row: int) -> None:
        """By a token."""
        pages, tokens = self.sequences[row]
        if tokens % PAGE == 0:
            pages = [*pages, self._pages]
            self._pages += 1
        self.sequences[row] = (pages, tokens + 1)

    def step(self, rows: list[int]) -> tuple[Integers, Integers]:
        """-> contexts, page table"""
        chosen = [self.sequences[row] for row in rows]
        table = np.zeros((len(rows), max(len(pages) for pages, _ in chosen)), dtype=np.int32)
        for row, (pages, _) in enumerate(chosen):
            table[row, : len(pages)] = pages
        return np.array([tokens for _, tokens in chosen]), table


def decode(contexts: Integers, table: Integers, **options: object) -> Plan:
    return plan(np.ones_like(contexts), contexts, table, PAGE, **options)  # type: ignore[arg-type]
