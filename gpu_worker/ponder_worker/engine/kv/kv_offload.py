"""Where the pages of preempted sequences wait, if that is cheaper than to compute them again."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from ponder_worker.engine.kv.page_pool import PagePool
from ponder_worker.engine.sequence import Parked, Sequence

_FLOPS_PER_S = 300e12  # a prefill in bfloat16
_BUS_BYTES_PER_S = 20e9  # PCIe 4, pinned
Pairs = list[tuple[int, int]]


@dataclass(frozen=True, slots=True)
class Costs:
    """Seconds: of a token computed again, and of a page moved to the host or back."""

    token_s: float
    page_s: float

    @classmethod
    def declared(cls, flops_per_token: int, page_bytes: int) -> "Costs":
        """Of a GPU at rates that it should reach."""
        return cls(flops_per_token / _FLOPS_PER_S, page_bytes / _BUS_BYTES_PER_S)


class KVOffload:
    """Pages of host memory, 0 to num_pages. `park` copies pages there, (from, to), after what is under way."""

    def __init__(self, num_pages: int, costs: Costs, park: Callable[[Pairs], None]) -> None:
        self.num_pages = num_pages
        self._costs = costs
        self._park = park
        self._free = list(reversed(range(num_pages)))
        self._left: list[int] = []  # read by the step that was planned last; free when the next one is

    def park(self, sequence: Sequence, pool: PagePool) -> None:
        """Keeps the pages that nobody else holds, if that is cheaper than to compute them again and there is room."""
        table, computed = sequence.table, sequence.num_computed
        end = pool.pages_for(computed)
        first = pool.num_shared(table.pages[:end])
        moved, lost = end - first, computed - first * pool.page_size
        if moved <= 0 or moved > len(self._free) or 2 * moved * self._costs.page_s >= lost * self._costs.token_s:
            return
        pages = [self._free.pop() for _ in range(moved)]
        self._park(list(zip(table.pages[first:end], pages, strict=True)))
        sequence.parked = Parked(first, pages, computed)

    def fetch(self, sequence: Sequence, num_found: int) -> tuple[int, Pairs]:
        """After `num_found` pages were found: how many tokens stand in pages once these copies, (from, to), are made.

        (0, []) where what was parked does not follow on what was found.
        """
        parked = sequence.parked
        assert parked is not None
        self.leave(sequence)
        if num_found < parked.first or num_found - parked.first >= len(parked.pages):
            return 0, []
        skipped = num_found - parked.first
        targets = sequence.table.pages[num_found : num_found + len(parked.pages) - skipped]
        return parked.num_tokens, list(zip(parked.pages[skipped:], targets, strict=True))

    def leave(self, sequence: Sequence) -> None:
        """Its pages are free from the next plan on."""
        if sequence.parked is not None:
            self._left += sequence.parked.pages
            sequence.parked = None

    def settle(self) -> None:
        """To be called when a step is planned."""
        self._free += self._left
        self._left = []

    def check(self, sequences: Iterable[Sequence]) -> None:
        """AssertionError unless every page is free or some sequence's."""
        held = [page for sequence in sequences if sequence.parked is not None for page in sequence.parked.pages]
        assert sorted([*self._free, *self._left, *held]) == list(range(self.num_pages)), "a parked page is lost"
