"""Keeps pages of preempted sequences in host memory, where that is cheaper than to compute them again."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import chain

from ponder_worker.engine.kv.page_pool import PagePairs, PagePool
from ponder_worker.engine.sequence import OffloadedPages, Sequence

_FLOPS_PER_S = 300e12  # a prefill in bfloat16
_BUS_BYTES_PER_S = 20e9  # PCIe 4, pinned memory


@dataclass(frozen=True, slots=True)
class OffloadCosts:
    """The seconds that it takes to compute a token again, and to copy a page to the host or back."""

    token_s: float
    page_s: float

    @classmethod
    def estimated(cls, flops_per_token: int, page_bytes: int) -> "OffloadCosts":
        """Returns the costs on a GPU that reaches its usual rates."""
        return cls(flops_per_token / _FLOPS_PER_S, page_bytes / _BUS_BYTES_PER_S)


class KVOffload:
    """Pages of host memory, 0 to num_pages."""

    def __init__(self, num_pages: int, costs: OffloadCosts, copy: Callable[[PagePairs], None]) -> None:
        """Starts with all pages free. copy: copies pages of the pool to the host, after the steps in flight."""
        self.num_pages = num_pages
        self._costs = costs
        self._copy = copy
        self._free = list(reversed(range(num_pages)))
        self._leaving: list[int] = []  # read by the step planned last; free when the next one is planned

    def save(self, sequence: Sequence, pool: PagePool) -> None:
        """Copies the pages that no other sequence holds, if there is room and computing them again costs more.

        Where pages fell out of a window, all tokens would be computed again to have those that are left.
        """
        num_computed = sequence.num_computed
        end = pool.pages_for(num_computed)
        firsts, kept = [], []
        for table in sequence.tables:
            num_shared = pool.count_shared(table.pages[table.num_dropped : end])
            firsts.append(table.num_dropped + num_shared)
            kept.append(firsts[-1] if num_shared else 0)
        num_moved, num_lost = sum(end - first for first in firsts), num_computed - min(kept) * pool.page_size
        if num_moved <= 0 or num_moved > len(self._free):
            return
        if 2 * num_moved * self._costs.page_s >= num_lost * self._costs.token_s:
            return
        pages = [[self._free.pop() for _ in range(first, end)] for first in firsts]
        sources = (table.pages[first:end] for table, first in zip(sequence.tables, firsts, strict=True))
        self._copy(list(zip(chain(*sources), chain(*pages), strict=True)))
        sequence.offloaded = OffloadedPages(firsts, pages, num_computed)

    def drop(self, sequence: Sequence) -> None:
        """Gives the sequence's pages of the host up. They are free once the next step is planned."""
        if sequence.offloaded is not None:
            self._leaving += sequence.offloaded.all_pages
            sequence.offloaded = None

    def begin_step(self) -> None:
        """Frees the pages that were read by the step before."""
        self._free += self._leaving
        self._leaving = []

    def check(self, sequences: Iterable[Sequence]) -> None:
        """Raises AssertionError unless every page is free or belongs to one sequence."""
        offloaded = [sequence.offloaded for sequence in sequences if sequence.offloaded is not None]
        held = [page for each in offloaded for page in each.all_pages]
        assert sorted([*self._free, *self._leaving, *held]) == list(range(self.num_pages)), "a page of the host is lost"
