"""Page tables of a search, in which sequences fork from each other."""

import numpy as np
import numpy.typing as npt

from ponder_kernels.attention.attention_plan import AttentionPlan, plan

Integers = npt.NDArray[np.int64]
PAGE = 16


class Tree:
    """Sequences that fork from each other as a search does: whole pages are shared, others copied."""

    def __init__(self) -> None:
        self.sequences: list[tuple[list[int], int]] = []
        self._pages = 0

    def add(self, length: int, parent: int | None = None) -> int:
        """Add a sequence that extends its parent by `length` tokens, and return its row."""
        pages, tokens = self.sequences[parent] if parent is not None else ([], 0)
        kept = pages[: tokens // PAGE]
        total = tokens + length
        fresh = -(-total // PAGE) - len(kept)
        self.sequences.append((kept + list(range(self._pages, self._pages + fresh)), total))
        self._pages += fresh
        return len(self.sequences) - 1

    def grow(self, row: int) -> None:
        """Extend a sequence by one token."""
        pages, tokens = self.sequences[row]
        if tokens % PAGE == 0:
            pages = [*pages, self._pages]
            self._pages += 1
        self.sequences[row] = (pages, tokens + 1)

    def step(self, rows: list[int]) -> tuple[Integers, Integers]:
        """Context lengths and page table of these rows."""
        chosen = [self.sequences[row] for row in rows]
        table = np.zeros((len(rows), max(len(pages) for pages, _ in chosen)), dtype=np.int32)
        for row, (pages, _) in enumerate(chosen):
            table[row, : len(pages)] = pages
        return np.array([tokens for _, tokens in chosen]), table


def decode(contexts: Integers, table: Integers, **options: object) -> AttentionPlan:
    return plan(np.ones_like(contexts), contexts, table, PAGE, **options)  # type: ignore[arg-type]
