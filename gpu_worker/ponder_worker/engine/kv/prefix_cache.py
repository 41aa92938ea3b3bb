"""Which pages hold which tokens, so that a prefix is computed once."""

from collections import OrderedDict
from collections.abc import Iterable, Mapping
from collections.abc import Sequence as Series
from itertools import takewhile

from ponder_worker.engine.kv.page_table import PageKey, PageTable


class Prefixes:
    """Finds full pages by the chain of keys that leads to them, and last pages, not full, by what comes before.

    num_evicted: findable pages that were taken for something else; num_thrashed: those of them that had to be computed
    again, as far as is remembered, which is `remembered` pages.
    """

    def __init__(self, page_size: int, *, remembered: int) -> None:
        self._page_size = page_size
        self._remembered = remembered
        self._page_of: dict[PageKey, int] = {}
        self._of_page: dict[int, tuple[PageKey, bytes]] = {}  # key and tokens
        self._partial_of: dict[PageKey, int] = {}  # what comes before a page that is not full -> the page
        self._partial: dict[int, tuple[PageKey, list[int]]] = {}
        self._evicted: OrderedDict[PageKey, None] = OrderedDict()
        self.num_evicted = self.num_thrashed = 0

    def __contains__(self, page: int) -> bool:
        """Could somebody find it?"""
        return page in self._of_page or page in self._partial

    def find(self, table: PageTable) -> list[int]:
        """The pages that hold the front of the table's keyed tokens. Nothing is held yet."""
        found: list[int] = []
        for key, content in zip(table.keys, table.contents, strict=True):
            page = self._page_of.get(key)
            # Equal keys of different tokens are next to impossible, and would be a wrong answer.
            if page is None or self._of_page[page][1] != content:
                break
            found.append(page)
        return found

    def find_partial(self, table: PageTable, tokens: Series[int], num_found: int) -> tuple[int, int]:
        """After `num_found` full pages: a page whose first tokens are the table's next ones, and how many.

        Nobody need hold it: whoever is given it writes there after the copies of the step, unless he is copied to it.
        """
        page = self._partial_of.get(table.parent_key(num_found))
        if page is None:
            return -1, 0
        first = num_found * self._page_size
        pairs = zip(self._partial[page][1], tokens[first : first + self._page_size], strict=False)
        return page, sum(takewhile(bool, (one == other for one, other in pairs)))

    def register(self, table: PageTable, num_tokens: int) -> None:
        """Others find the table's pages that `num_tokens` fill. To be called when they are sure to be computed."""
        for index in range(table.num_registered, num_tokens // self._page_size):
            page, key = table.pages[index], table.keys[index]
            if key in self._evicted:
                del self._evicted[key]
                self.num_thrashed += 1
            if key not in self._page_of and page not in self._of_page:
                self._page_of[key] = page
                self._of_page[page] = key, table.contents[index]
            table.num_registered = index + 1

    def register_partial(self, table: PageTable, tokens: Series[int], num_computed: int) -> None:
        """Others may copy the table's last page, of which the front is computed; the latest of a parent is kept."""
        index, used = divmod(num_computed, self._page_size)
        if not used or index > len(table.keys):
            return
        page, parent = table.pages[index], table.parent_key(index)
        self._forget_partial(page)
        former = self._partial_of.get(parent)
        if former is not None:
            self._forget_partial(former)
        self._partial_of[parent] = page
        self._partial[page] = parent, list(tokens[num_computed - used : num_computed])

    def forget(self, pages: Iterable[int]) -> None:
        """The pages are taken for something else."""
        for page in pages:
            entry = self._of_page.pop(page, None)
            if entry is not None:
                del self._page_of[entry[0]]
                self._evicted[entry[0]] = None
                self.num_evicted += 1
            if page in self._partial:
                self._forget_partial(page)
        while len(self._evicted) > self._remembered:
            self._evicted.popitem(last=False)

    def move(self, moves: Mapping[int, int]) -> None:
        """What the pages hold stands in others now, from -> to, which were forgotten."""
        for page, target in moves.items():
            if (entry := self._of_page.pop(page, None)) is not None:
                self._of_page[target] = entry
                self._page_of[entry[0]] = target
            if (partial := self._partial.pop(page, None)) is not None:
                self._partial[target] = partial
                self._partial_of[partial[0]] = target

    def check(self) -> None:
        """AssertionError unless what leads to a page and what the page says are the same."""
        keys = {page: entry[0] for page, entry in self._of_page.items()}
        assert {page: key for key, page in self._page_of.items()} == keys, "a key leads to a wrong page"
        partials = {page: entry[0] for page, entry in self._partial.items()}
        assert {page: key for key, page in self._partial_of.items()} == partials, "a partial page cannot be found"

    def _forget_partial(self, page: int) -> None:
        entry = self._partial.pop(page, None)
        if entry is not None:
            del self._partial_of[entry[0]]
