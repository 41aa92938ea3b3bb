"""Finds the pages that already hold a prefix, so that it is computed once."""

from collections import OrderedDict
from collections.abc import Iterable, Mapping
from collections.abc import Sequence as Series
from dataclasses import dataclass
from itertools import takewhile

from ponder_worker.engine.page_table import PageKey, PageTable


@dataclass(frozen=True, slots=True)
class PrefixMatch:
    """The part of a sequence's tokens that pages of the pool already hold.

    pages: full pages, from the first on.
    partial_page, num_partial: a page whose first num_partial tokens come next; (-1, 0) where there is none.
    """

    pages: list[int]
    partial_page: int
    num_partial: int


class PrefixCache:
    """Finds full pages by their chain of keys, and one partly filled page by the key of what comes before it.

    num_evicted: findable pages that were taken for something else. num_thrashed: pages that were evicted and computed
    again, as far back as the cache remembers, which is `num_remembered` pages.
    """

    def __init__(self, page_size: int, *, num_remembered: int) -> None:
        self._page_size = page_size
        self._num_remembered = num_remembered
        self._page_of: dict[PageKey, int] = {}
        self._of_page: dict[int, tuple[PageKey, bytes]] = {}  # key and tokens
        self._partial_of: dict[PageKey, int] = {}  # key of what comes before the page -> the page
        self._partial: dict[int, tuple[PageKey, list[int]]] = {}
        self._evicted: OrderedDict[PageKey, None] = OrderedDict()
        self.num_evicted = self.num_thrashed = 0

    def __contains__(self, page: int) -> bool:
        """Whether a sequence could find the page."""
        return page in self._of_page or page in self._partial

    def match(self, table: PageTable, tokens: Series[int]) -> PrefixMatch:
        """Looks `tokens` up, whose full pages the table has keyed. Does not hold the pages it finds."""
        pages: list[int] = []
        for key, content in zip(table.keys, table.contents, strict=True):
            page = self._page_of.get(key)
            # Equal keys of different tokens are all but impossible, and would give a wrong answer.
            if page is None or self._of_page[page][1] != content:
                break
            pages.append(page)
        return PrefixMatch(pages, *self._match_partial(table, tokens, len(pages)))

    def _match_partial(self, table: PageTable, tokens: Series[int], num_full: int) -> tuple[int, int]:
        page = self._partial_of.get(table.parent_key(num_full))
        if page is None:
            return -1, 0
        first = num_full * self._page_size
        pairs = zip(self._partial[page][1], tokens[first : first + self._page_size], strict=False)
        return page, sum(takewhile(bool, (one == other for one, other in pairs)))

    def register(self, table: PageTable, num_tokens: int) -> None:
        """Makes the pages that `num_tokens` fill findable. Call it only for tokens that are sure to be computed."""
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
        """Lets others copy the page that num_computed tokens fill in part; replaces an older one after the same key."""
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
        """Drops pages that are taken for something else."""
        for page in pages:
            entry = self._of_page.pop(page, None)
            if entry is not None:
                del self._page_of[entry[0]]
                self._evicted[entry[0]] = None
                self.num_evicted += 1
            if page in self._partial:
                self._forget_partial(page)
        while len(self._evicted) > self._num_remembered:
            self._evicted.popitem(last=False)

    def renumber(self, moves: Mapping[int, int]) -> None:
        """Follows contents that moved from one page to another, which had been forgotten."""
        for page, target in moves.items():
            if (entry := self._of_page.pop(page, None)) is not None:
                self._of_page[target] = entry
                self._page_of[entry[0]] = target
            if (partial := self._partial.pop(page, None)) is not None:
                self._partial[target] = partial
                self._partial_of[partial[0]] = target

    def check(self) -> None:
        """Raises AssertionError unless every key and its page name each other."""
        keys = {page: entry[0] for page, entry in self._of_page.items()}
        assert {page: key for key, page in self._page_of.items()} == keys, "a key leads to a wrong page"
        partials = {page: entry[0] for page, entry in self._partial.items()}
        assert {page: key for key, page in self._partial_of.items()} == partials, "a partial page cannot be found"

    def _forget_partial(self, page: int) -> None:
        entry = self._partial.pop(page, None)
        if entry is not None:
            del self._partial_of[entry[0]]
