"""Reference-counted pages, and the chain of keys by which a sequence finds pages that already hold its prefix."""

from __future__ import annotations

from array import array
from collections import OrderedDict
from collections.abc import Iterable
from collections.abc import Sequence as Series
from hashlib import blake2b
from itertools import takewhile

PageKey = bytes
_REMEMBERED = 4
"""Evicted pages whose keys are remembered, for each page of the pool."""


class PageTable:
    """The pages of one sequence in order.

    keys: one for each full page of its known tokens, page or no page; they outlive preemption.
    num_registered: pages at the front that others can find.
    """

    __slots__ = ("contents", "keys", "num_registered", "pages", "salt")

    def __init__(self, salt: bytes = b"") -> None:
        self.salt = salt
        self.pages: array[int] = array("i")
        self.keys: list[PageKey] = []
        self.contents: list[bytes] = []
        self.num_registered = 0

    def parent_key(self, index: int) -> PageKey:
        """Of everything before the page of this index."""
        return self.keys[index - 1] if index else blake2b(self.salt, digest_size=16).digest()

    def key_tokens(self, tokens: Series[int], page_size: int) -> None:
        """Extends `keys` to all full pages of `tokens`."""
        for first in range(len(self.keys) * page_size, len(tokens) - page_size + 1, page_size):
            content = array("q", tokens[first : first + page_size]).tobytes()
            parent = self.parent_key(len(self.keys))
            self.keys.append(blake2b(parent + content, digest_size=16).digest())
            self.contents.append(content)


class PagePool:
    """Who holds which page. A page nobody holds stays findable until it is needed, the longest unused one first.

    The pool knows page numbers only; keys and values stand in the runner's tensor. num_referenced: pages as tables name
    them; less num_held, that is what sharing saves. num_evicted: findable pages that were taken for something else;
    num_thrashed: those of them that had to be computed again, as far as is remembered.
    """

    def __init__(self, num_pages: int, page_size: int) -> None:
        self.num_pages = num_pages
        self.page_size = page_size
        self._holders = [0] * num_pages
        self._free: OrderedDict[int, None] = OrderedDict.fromkeys(range(num_pages))
        self._page_of: dict[PageKey, int] = {}
        self._key_of: list[PageKey | None] = [None] * num_pages
        self._content_of: list[bytes] = [b""] * num_pages
        self._partial_of: dict[PageKey, int] = {}  # what comes before a page that is not full -> the page
        self._partial: list[tuple[PageKey, list[int]] | None] = [None] * num_pages
        self._evicted: OrderedDict[PageKey, None] = OrderedDict()
        self.num_referenced = self.num_evicted = self.num_thrashed = 0

    @property
    def num_free(self) -> int:
        return len(self._free)

    @property
    def num_held(self) -> int:
        return self.num_pages - len(self._free)

    def pages_for(self, num_tokens: int) -> int:
        return -(-num_tokens // self.page_size)

    def find(self, table: PageTable) -> list[int]:
        """The pages that hold the front of the table's keyed tokens. Nothing is held yet."""
        found: list[int] = []
        for key, content in zip(table.keys, table.contents, strict=True):
            page = self._page_of.get(key)
            # Equal keys of different tokens are next to impossible, and would be a wrong answer.
            if page is None or self._content_of[page] != content:
                break
            found.append(page)
        return found

    def find_partial(self, table: PageTable, tokens: Series[int], num_found: int) -> tuple[int, int]:
        """After `num_found` full pages: a page whose first tokens are the table's next ones, and how many.

        It is to be copied. The next `grow` may give it away; it holds them until the step is computed.
        """
        page = self._partial_of.get(table.parent_key(num_found))
        if page is None:
            return -1, 0
        entry = self._partial[page]
        assert entry is not None
        first = num_found * self.page_size
        pairs = zip(entry[1], tokens[first : first + self.page_size], strict=False)
        return page, sum(takewhile(bool, (one == other for one, other in pairs)))

    def num_free_of(self, pages: Iterable[int]) -> int:
        """How many of these pages nobody holds."""
        return sum(not self._holders[page] for page in pages)

    def share(self, table: PageTable, pages: Iterable[int]) -> None:
        """The empty table holds these pages, as `find` gave them."""
        assert not table.pages
        for page in pages:
            if not self._holders[page]:
                del self._free[page]
            self._holders[page] += 1
            table.pages.append(page)
        self.num_referenced += len(table.pages)
        table.num_registered = len(table.pages)

    def grow(self, table: PageTable, num_tokens: int) -> bool:
        """The table gets pages for so many tokens in all; False, and nothing changed, if there are too few."""
        missing = self.pages_for(num_tokens) - len(table.pages)
        if missing > len(self._free):
            return False
        for _ in range(missing):
            page, _ = self._free.popitem(last=False)
            self._forget(page)
            self._holders[page] = 1
            table.pages.append(page)
        self.num_referenced += max(0, missing)
        return True

    def register(self, table: PageTable, num_tokens: int) -> None:
        """Others find the table's pages that `num_tokens` fill. To be called when they are sure to be computed."""
        for index in range(table.num_registered, num_tokens // self.page_size):
            page, key = table.pages[index], table.keys[index]
            if key in self._evicted:
                del self._evicted[key]
                self.num_thrashed += 1
            if key not in self._page_of and self._key_of[page] is None:
                self._page_of[key] = page
                self._key_of[page], self._content_of[page] = key, table.contents[index]
            table.num_registered = index + 1

    def register_partial(self, table: PageTable, tokens: Series[int], num_computed: int) -> None:
        """Others may copy the table's last page, of which the front is computed; the latest of a parent is kept."""
        index, used = divmod(num_computed, self.page_size)
        if not used or index > len(table.keys):
            return
        page, parent = table.pages[index], table.parent_key(index)
        self._forget_partial(page)
        former = self._partial_of.get(parent)
        if former is not None:
            self._forget_partial(former)
        self._partial_of[parent] = page
        self._partial[page] = parent, list(tokens[num_computed - used : num_computed])

    def release(self, table: PageTable) -> None:
        """The table holds nothing any more. The tail becomes free first: a prefix is of use to more."""
        self.num_referenced -= len(table.pages)
        for page in reversed(table.pages):
            self._holders[page] -= 1
            if not self._holders[page]:
                self._free[page] = None
                if self._key_of[page] is None and self._partial[page] is None:
                    self._free.move_to_end(page, last=False)
        table.pages = array("i")
        table.num_registered = 0

    def check(self, tables: Iterable[PageTable]) -> None:
        """AssertionError unless free + held = total and every page has as many holders as tables name it."""
        counted = [0] * self.num_pages
        for table in tables:
            assert len(set(table.pages)) == len(table.pages), "a table names a page twice"
            for page in table.pages:
                counted[page] += 1
        assert counted == self._holders, "holders are not those that the tables name"
        assert len(self._free) + sum(count > 0 for count in counted) == self.num_pages, "free + held is not total"
        assert all(not self._holders[page] for page in self._free), "a free page is held"
        assert all(self._key_of[page] == key for key, page in self._page_of.items()), "a key leads to a wrong page"
        assert sum(counted) == self.num_referenced, "references are miscounted"
        partials = {page: entry[0] for page, entry in enumerate(self._partial) if entry is not None}
        assert {page: key for key, page in self._partial_of.items()} == partials, "a partial page cannot be found"
        assert sum(key is not None for key in self._key_of) == len(self._page_of), "a keyed page cannot be found"

    def _forget(self, page: int) -> None:
        key = self._key_of[page]
        if key is not None:
            del self._page_of[key]
            self._key_of[page], self._content_of[page] = None, b""
            self.num_evicted += 1
            self._evicted[key] = None
            if len(self._evicted) > _REMEMBERED * self.num_pages:
                self._evicted.popitem(last=False)
        self._forget_partial(page)

    def _forget_partial(self, page: int) -> None:
        entry = self._partial[page]
        if entry is not None:
            del self._partial_of[entry[0]]
            self._partial[page] = None
