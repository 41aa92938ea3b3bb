"""Finds the pages that already hold a prefix, so that it is computed once."""

from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping
from collections.abc import Sequence as Series
from dataclasses import dataclass
from itertools import islice, takewhile

from ponder_worker.engine.page_table import PageKey, PageTable


@dataclass(frozen=True, slots=True)
class Window:
    """The tokens that a group of layers looks back on, the current one included, in pages of this size."""

    num_tokens: int
    page_size: int

    def first_page(self, position: int) -> int:
        """Returns the index of the first page that the token at this position, or a later one, has need of."""
        return max(0, position - self.num_tokens) // self.page_size

    def most_pages(self, num_tokens: int) -> int:
        """Returns the most pages that a sequence holds of which a step computes so many tokens."""
        return (self.num_tokens - 1) // self.page_size + (num_tokens - 2) // self.page_size + 3


@dataclass(frozen=True, slots=True)
class PrefixMatch:
    """The part of a sequence's tokens that pages of the pool already hold.

    num_tokens: the tokens of full pages that need not be computed.
    pages, num_skipped: for each table, the pages found, from the first that the sequence has need of, and how many come
    before it, which need not be held.
    partial_pages, num_partial: for each table a page whose first num_partial tokens come next; ([], 0) where a table
    has none.
    returns: whether num_tokens counts, beside the pages found, those that come after them and are in host memory.
    """

    num_tokens: int
    pages: Series[list[int]]
    num_skipped: Series[int]
    partial_pages: Series[int] = ()
    num_partial: int = 0
    returns: bool = False

    @property
    def ends(self) -> list[int]:
        """For each table, the index of the first page that is not found."""
        return [first + len(pages) for first, pages in zip(self.num_skipped, self.pages, strict=True)]


class PrefixCache:
    """Finds full pages by their chain of keys, and one partly filled page by the key of what comes before it.

    is_on: whether it finds anything; off, every sequence computes all of its tokens, those of its siblings' prompt too.
    num_evicted: findable pages that were taken for something else. num_thrashed: pages that were evicted and computed
    again, as far back as the cache remembers, which is `num_remembered` pages.
    """

    def __init__(self, page_size: int, *, num_remembered: int, is_on: bool = True) -> None:
        self._page_size = page_size
        self._num_remembered = num_remembered
        self._is_on = is_on
        self._page_of: dict[PageKey, int] = {}
        self._of_page: dict[int, tuple[PageKey, bytes]] = {}  # key and tokens
        self._partial_of: dict[PageKey, int] = {}  # key of what comes before the page -> the page
        self._partial: dict[int, tuple[PageKey, list[int]]] = {}
        self._evicted: OrderedDict[PageKey, None] = OrderedDict()
        self.num_evicted = self.num_thrashed = 0

    def __contains__(self, page: int) -> bool:
        """Whether a sequence could find the page."""
        return page in self._of_page or page in self._partial

    def match(
        self, tables: Series[PageTable], tokens: Series[int], windows: Series[Window | None], first_needed: int
    ) -> PrefixMatch:
        """Looks `tokens` up, whose full pages the tables of a sequence have keyed. Does not hold the pages it finds.

        It finds the longest prefix of which every table has all pages, or those of its window; earlier ones may have
        been evicted. first_needed: the first token that must be computed, even if its page is found.
        """
        fronts: list[list[int | None]] = [
            list(self._find(table) if window else takewhile(_is_page, self._find(table)))
            for table, window in zip(tables, windows, strict=True)
        ]
        num_pages = min(map(len, fronts))
        if any(windows):
            num_pages = self._longest(fronts, windows, num_pages, first_needed)
        skipped = self._firsts(windows, num_pages, first_needed)
        pages = [
            [page for page in front[first:num_pages] if page is not None]
            for front, first in zip(fronts, skipped, strict=True)
        ]
        partial_pages, num_partial = self._match_partial(tables, tokens, num_pages)
        return PrefixMatch(num_pages * self._page_size, pages, skipped, partial_pages, num_partial)

    def _longest(
        self, fronts: Series[list[int | None]], windows: Series[Window | None], most: int, first_needed: int
    ) -> int:
        """Returns how many pages, at most `most`, the longest prefix has of which no table misses one it needs."""
        num_pages, missing = 0, [-1] * len(fronts)
        for index in range(most):
            for number, front in enumerate(fronts):
                if front[index] is None:
                    missing[number] = index
            firsts = self._firsts(windows, index + 1, first_needed)
            if all(gap < first for gap, first in zip(missing, firsts, strict=True)):
                num_pages = index + 1
        return num_pages

    def _firsts(self, windows: Series[Window | None], num_pages: int, first_needed: int) -> list[int]:
        """Returns the first page that each table has need of after so many full pages."""
        position = min(num_pages * self._page_size, first_needed)
        return [0 if window is None else window.first_page(position) for window in windows]

    def run(self, table: PageTable, first: int, end: int) -> list[int]:
        """Returns the pages found from index `first` on, up to a gap or to `end`."""
        found = takewhile(_is_page, islice(self._find(table, first), max(0, end - first)))
        return [page for page in found if page is not None]

    def _find(self, table: PageTable, first: int = 0) -> Iterator[int | None]:
        """Yields the page of each key from index `first` on, or None where there is none."""
        for index in range(first, len(table.keys)):
            key, content = table.keys[index], table.contents[index]
            page = self._page_of.get(key)
            # Equal keys of different tokens are all but impossible, and would give a wrong answer.
            yield None if page is None or self._of_page[page][1] != content else page

    def _match_partial(self, tables: Series[PageTable], tokens: Series[int], num_full: int) -> tuple[list[int], int]:
        first = num_full * self._page_size
        wanted = tokens[first : first + self._page_size]
        pages, num_partial = [], len(wanted)
        for table in tables:
            page = self._partial_of.get(table.parent_key(num_full))
            if page is None:
                return [], 0
            pages.append(page)
            pairs = zip(self._partial[page][1], wanted, strict=False)
            num_partial = min(num_partial, sum(takewhile(bool, (one == other for one, other in pairs))))
        return pages, num_partial

    def register(self, table: PageTable, num_tokens: int) -> None:
        """Makes the pages that `num_tokens` fill findable. Call it only for tokens that are sure to be computed.

        A page that was computed again, because others that belong to it were missing, is found in place of the older
        one, which will be evicted before it.
        """
        if not self._is_on:
            table.num_registered = max(table.num_registered, num_tokens // self._page_size)
            return
        for index in range(table.num_registered, num_tokens // self._page_size):
            page, key = table.pages[index], table.keys[index]
            if key in self._evicted:
                del self._evicted[key]
                self.num_thrashed += 1
            if page not in self._of_page:
                if (former := self._page_of.get(key)) is not None:
                    del self._of_page[former]
                self._page_of[key] = page
                self._of_page[page] = key, table.contents[index]
            table.num_registered = index + 1

    def register_partial(self, table: PageTable, tokens: Series[int], num_computed: int) -> None:
        """Lets others copy the page that num_computed tokens fill in part; replaces an older one after the same key."""
        index, used = divmod(num_computed, self._page_size)
        if not self._is_on or not used or index > len(table.keys):
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


def _is_page(page: int | None) -> bool:
    return page is not None
