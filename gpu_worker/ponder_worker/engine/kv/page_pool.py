"""Reference-counted pages, which may come and go in slabs."""

from array import array
from collections import Counter, OrderedDict
from collections.abc import Iterable
from collections.abc import Sequence as Series
from itertools import islice, takewhile

import numpy as np

from ponder_worker.engine.kv.page_table import PageTable
from ponder_worker.engine.kv.prefix_cache import Prefixes

_REMEMBERED = 4
"""Evicted pages whose keys are remembered, for each page of the pool."""


class PagePool:
    """Who holds which page. A page nobody holds stays findable until it is needed, the longest unused one first.

    The pool knows page numbers only, 0 to `num_pages`; keys and values stand in a `Storage`. With `slab_pages` the pool
    owns none of them at first, and then those of the slabs it was given: slab i is the pages from i * slab_pages on.
    num_referenced: pages as tables name them; less num_held, that is what sharing saves.
    """

    def __init__(self, num_pages: int, page_size: int, *, slab_pages: int = 0) -> None:
        self.num_pages = num_pages
        self.page_size = page_size
        self.slab_pages = slab_pages or num_pages
        self.slabs: set[int] = set()
        self.prefixes = Prefixes(page_size, remembered=_REMEMBERED * num_pages)
        self._holders = array("i", bytes(4 * num_pages))
        self._held_of = [0] * -(-num_pages // self.slab_pages)  # of each slab
        self._blank: dict[int, None] = {}  # free, and nothing is found there: taken first, the last of them first
        self._kept: OrderedDict[int, None] = OrderedDict()  # free: taken then, the first of them first
        self.num_referenced = 0
        if not slab_pages:
            self.add_slab(0)

    @property
    def num_free(self) -> int:
        return len(self._blank) + len(self._kept)

    @property
    def num_held(self) -> int:
        return len(self.slabs) * self.slab_pages - self.num_free

    def pages_for(self, num_tokens: int) -> int:
        return -(-num_tokens // self.page_size)

    def num_free_of(self, pages: Iterable[int]) -> int:
        """How many of these pages nobody holds."""
        return sum(not self._holders[page] for page in pages)

    def num_shared(self, pages: Series[int]) -> int:
        """How many of these, from the first on, somebody else holds too."""
        return sum(1 for _ in takewhile(lambda page: self._holders[page] > 1, pages))

    def num_free_after(self, tables: Iterable[PageTable], enough: int) -> int:
        """How many pages nobody would hold, were these tables released; none is looked at after `enough`."""
        num_free, left = self.num_free, np.array(self._holders)
        for table in tables:
            if num_free >= enough:
                break
            pages = np.frombuffer(table.pages, dtype=np.int32)
            left[pages] -= 1
            num_free += int(np.count_nonzero(left[pages] == 0))
        return num_free

    def evicts(self, num_pages: int) -> bool:
        """Would so many more pages cost something that can still be found?"""
        return any(page in self.prefixes for page in islice(self._kept, max(0, num_pages - len(self._blank))))

    def share(self, table: PageTable, pages: Iterable[int]) -> None:
        """The empty table holds these pages, as `Prefixes.find` gave them."""
        assert not table.pages
        for page in pages:
            if not self._holders[page]:
                del self._kept[page]
                self._held_of[page // self.slab_pages] += 1
            self._holders[page] += 1
            table.pages.append(page)
        self.num_referenced += len(table.pages)
        table.num_registered = len(table.pages)

    def grow(self, table: PageTable, num_tokens: int) -> bool:
        """The table gets pages for so many tokens in all; False, and nothing changed, if there are too few."""
        missing = self.pages_for(num_tokens) - len(table.pages)
        if missing > self.num_free:
            return False
        for page in self._take_free(missing):
            self._holders[page] = 1
            self._held_of[page // self.slab_pages] += 1
            table.pages.append(page)
        self.num_referenced += max(0, missing)
        return True

    def release(self, table: PageTable) -> None:
        """The table holds nothing any more. The tail becomes free first: a prefix is of use to more."""
        self.num_referenced -= len(table.pages)
        for page in reversed(table.pages):
            self._holders[page] -= 1
            if not self._holders[page]:
                self._held_of[page // self.slab_pages] -= 1
                free = self._kept if page in self.prefixes else self._blank
                free[page] = None
        table.pages = array("i")
        table.num_registered = 0

    def add_slab(self, slab: int) -> None:
        """Its pages are free, and are the first to be taken: they hold nothing."""
        self.slabs.add(slab)
        self._blank.update(dict.fromkeys(reversed(self._pages_of(slab))))

    def vacate(self) -> tuple[int, dict[int, int]]:
        """Gives up the slab of which the fewest pages are held, and moves these: -> the slab, and moves from -> to.

        To be called when as many pages are free as a slab has. The contents are the caller's to copy, all at once, and
        the tables his to rename, before anything else happens to either.
        """
        assert self.num_free >= self.slab_pages
        slab = min(self.slabs, key=self._held_of.__getitem__)
        held = [page for page in self._pages_of(slab) if self._holders[page]]
        given_up = [page for page in self._pages_of(slab) if not self._holders[page]]
        for page in given_up:
            del (self._blank if page in self._blank else self._kept)[page]
        self.prefixes.forget(given_up)
        moves = dict(zip(held, self._take_free(len(held)), strict=True))
        for page, target in moves.items():
            self._holders[target], self._holders[page] = self._holders[page], 0
            self._held_of[target // self.slab_pages] += 1
        self.prefixes.move(moves)
        self._held_of[slab] = 0
        self.slabs.remove(slab)
        return slab, moves

    def check(self, tables: Iterable[PageTable]) -> None:
        """AssertionError unless free + held = total and every page has as many holders as tables name it."""
        counted = [0] * self.num_pages
        for table in tables:
            assert len(set(table.pages)) == len(table.pages), "a table names a page twice"
            for page in table.pages:
                counted[page] += 1
        assert counted == self._holders.tolist(), "holders are not those that the tables name"
        owned = {page for slab in self.slabs for page in self._pages_of(slab)}
        held = {page for page, count in enumerate(counted) if count}
        of_slabs = Counter(page // self.slab_pages for page in held)
        assert self._held_of == [of_slabs[slab] for slab in range(len(self._held_of))], "a slab's held are miscounted"
        free = self._blank.keys() | self._kept.keys()
        assert len(free) == self.num_free, "a page is free twice"
        assert not any(page in self.prefixes for page in self._blank), "a blank page is findable"
        assert not held & free, "a free page is held"
        assert held | free == owned, "free + held is not what the pool owns"
        assert sum(counted) == self.num_referenced, "references are miscounted"
        assert all(page in owned for page in range(self.num_pages) if page in self.prefixes), "a lost page is findable"
        self.prefixes.check()

    def _take_free(self, num_pages: int) -> list[int]:
        """There are so many; what could be found in them is forgotten."""
        blank = [self._blank.popitem()[0] for _ in range(min(num_pages, len(self._blank)))]
        kept = [self._kept.popitem(last=False)[0] for _ in range(num_pages - len(blank))]
        self.prefixes.forget(kept)
        return blank + kept

    def _pages_of(self, slab: int) -> range:
        return range(slab * self.slab_pages, (slab + 1) * self.slab_pages)
