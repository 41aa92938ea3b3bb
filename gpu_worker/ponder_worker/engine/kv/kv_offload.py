"""Keeps pages of preempted sequences in host memory, where that is cheaper than to compute them again."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

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
        """Copies the pages that no other sequence holds, if there is room and computing them again costs more."""
        table, num_computed = sequence.table, sequence.num_computed
        end = pool.pages_for(num_computed)
        first = pool.count_shared(table.pages[:end])
        num_moved, num_lost = end - first, num_computed - first * pool.page_size
        if num_moved <= 0 or num_moved > len(self._free):
            return
        if 2 * num_moved * self._costs.page_s >= num_lost * self._costs.token_s:
            return
        pages = [self._free.pop() for _ in range(num_moved)]
        self._copy(list(zip(table.pages[first:end], pages, strict=True)))
        sequence.offloaded = OffloadedPages(first, pages, num_computed)

    def restore(self, sequence: Sequence, num_found: int) -> tuple[int, PagePairs]:
        """Plans the way back of a sequence whose first `num_found` pages were found in the pool.

        Returns how many of its tokens are in pages once the copies are made, from the host to the pool, and the copies;
        (0, []) where the offloaded pages do not join the pages found.
        """
        offloaded = sequence.offloaded
        assert offloaded is not None
        self.drop(sequence)
        if num_found < offloaded.first or num_found - offloaded.first >= len(offloaded.pages):
            return 0, []
        sources = offloaded.pages[num_found - offloaded.first :]
        targets = sequence.table.pages[num_found : num_found + len(sources)]
        return offloaded.num_tokens, list(zip(sources, targets, strict=True))

    def drop(self, sequence: Sequence) -> None:
        """Gives the sequence's pages of the host up. They are free once the next step is planned."""
        if sequence.offloaded is not None:
            self._leaving += sequence.offloaded.pages
            sequence.offloaded = None

    def begin_step(self) -> None:
        """Frees the pages that were read by the step before."""
        self._free += self._leaving
        self._leaving = []

    def check(self, sequences: Iterable[Sequence]) -> None:
        """Raises AssertionError unless every page is free or belongs to one sequence."""
        held = [page for sequence in sequences if sequence.offloaded is not None for page in sequence.offloaded.pages]
        assert sorted([*self._free, *self._leaving, *held]) == list(range(self.num_pages)), "a page of the host is lost"
