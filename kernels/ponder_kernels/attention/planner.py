"""Reuse of plans over successive steps. Sequences that come, go, fork or outgrow a plan need a new one."""

from dataclasses import replace

import numpy as np
import numpy.typing as npt

from ponder_kernels.attention.attention_plan import AttentionPlan, Long, plan

__all__ = ["Planner"]

Table = npt.NDArray[np.int32]


class Planner:
    """Keeps the last plan while the rows stay the same and none grows by more than `ahead_tokens`.

    Until then only the positions change. num_planned: how often a plan was made.
    """

    def __init__(self, page_size: int, *, ahead_tokens: int = 64, **options: int | bool) -> None:
        """Plans for pages of this size. options: further arguments of `plan`."""
        self.num_planned = 0
        self._page_size = page_size
        self._ahead = ahead_tokens
        self._options = options
        self._kept: tuple[AttentionPlan, Long, Long, Table] | None = None

    def plan(self, queries: Long, contexts: Long, table: Table) -> AttentionPlan:
        """The plan of the next step; the arguments are those of `plan`. The result holds until the next call."""
        if self._kept is not None:
            found, old_queries, old_contexts, old_table = self._kept
            if np.array_equal(queries, old_queries) and self._grew(contexts, table, old_contexts, old_table):
                grown = np.repeat(contexts - old_contexts, queries)[found.tokens]
                return replace(found, positions=found.positions + grown.astype(np.int32))
        options = {"ahead_tokens": self._ahead, **self._options}
        found = plan(queries, contexts, table, self._page_size, **options)  # type: ignore[arg-type]
        self.num_planned += 1
        self._kept = found, queries.copy(), contexts.copy(), table.copy()
        return found

    def _grew(self, contexts: Long, table: Table, old_contexts: Long, old_table: Table) -> bool:
        by = contexts - old_contexts
        if by.min() < 0 or by.max() > self._ahead:
            return False
        width = -(-int(old_contexts.max()) // self._page_size)
        used = np.arange(width) * self._page_size < old_contexts[:, None]
        return not bool(((table[:, :width] != old_table[:, :width]) & used).any())
