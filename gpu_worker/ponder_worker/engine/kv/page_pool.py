"""Reference-counted pages, which may come and go in slabs."""

from array import array
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterable
from collections.abc import Sequence as Series
from itertools import islice, takewhile

import numpy as np

from ponder_worker.engine.kv.prefix_cache import PrefixCache
from ponder_worker.engine.page_table import PageTable

PagePairs = list[tuple[int, int]]
"""Pages to be copied, (from, to)."""
_REMEMBERED_PER_PAGE = 4
"""How many keys of evicted pages are remembered for each page of the pool."""


class PagePool:
    """Hands out the pages of one model. A released page stays findable until it is reused, longest unused first.

    The pool knows page numbers only, 0 to `num_pages`; `KVStorage` holds the keys and values. With `slab_pages` the
    pool starts empty and has the pages of the slabs that it is given: slab i is the pages from i * slab_pages on.
    num_referenced: pages as tables name them. Less num_held, it is the number of pages that sharing saves.
    """

    def __init__(
        self,
        num_pages: int,
        page_size: int,
        *,
        slab_pages: int = 0,
        prefix_caching: bool = True,
        copy: Callable[[PagePairs], None] = lambda _: None,
    ) -> None:
        """Makes a pool. copy: copies pages at once and in any order; it is called when a slab is given up.

        prefix_caching: whether sequences find the pages of others.
        """
        self.num_pages = num_pages
        self.page_size = page_size
        self.slab_pages = slab_pages or num_pages
        self.slabs: set[int] = set()
        self.prefixes = PrefixCache(page_size, num_remembered=_REMEMBERED_PER_PAGE * num_pages, is_on=prefix_caching)
        self._copy = copy
        self._tables: dict[PageTable, None] = {}  # those that hold pages
        self._num_holders = array("i", bytes(4 * num_pages))
        self._num_held_of_slab = [0] * -(-num_pages // self.slab_pages)
        self._blank: dict[int, None] = {}  # free and not findable: taken first, the latest first
        self._kept: OrderedDict[int, None] = OrderedDict()  # free but findable: taken next, the oldest first
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

    def count_free(self, pages: Iterable[int]) -> int:
        """Returns how many of these pages are free."""
        return sum(not self._num_holders[page] for page in pages)

    def count_shared(self, pages: Series[int]) -> int:
        """Returns how many of these pages, from the first on without a gap, have more than one holder."""
        return sum(1 for _ in takewhile(lambda page: self._num_holders[page] > 1, pages))

    def num_free_after(self, tables: Iterable[PageTable], enough: int) -> int:
        """Returns how many pages would be free if these tables were released; stops looking at `enough`."""
        num_free, num_holders = self.num_free, np.array(self._num_holders)
        for table in tables:
            if num_free >= enough:
                break
            pages = np.frombuffer(table.held, dtype=np.int32)
            num_holders[pages] -= 1
            num_free += int(np.count_nonzero(num_holders[pages] == 0))
        return num_free

    def evicts(self, num_pages: int) -> bool:
        """Returns whether taking so many pages would evict one that can still be found."""
        return any(page in self.prefixes for page in islice(self._kept, max(0, num_pages - len(self._blank))))

    def share(self, table: PageTable, pages: Series[int], num_skipped: int = 0) -> None:
        """Makes the empty table hold these pages, which the prefix cache found. They come after num_skipped others
        that the sequence has no need of. See `PageTable.cover_dropped`.
        """
        assert not table.pages
        table.pages = array("i", pages[:1] or [0]) * num_skipped
        table.num_dropped = num_skipped
        for page in pages:
            if not self._num_holders[page]:
                del self._kept[page]
                self._num_held_of_slab[page // self.slab_pages] += 1
            self._num_holders[page] += 1
            table.pages.append(page)
        if table.pages:
            self._tables[table] = None
        self.num_referenced += len(pages)
        table.num_registered = len(table.pages)

    def grow(self, table: PageTable, num_tokens: int) -> bool:
        """Gives the table pages for so many tokens in all. Returns False, and changes nothing, if too few are free."""
        num_missing = self.pages_for(num_tokens) - len(table.pages)
        if num_missing > self.num_free:
            return False
        if num_missing <= 0:
            return True
        for page in self._take_free(num_missing):
            self._num_holders[page] = 1
            self._num_held_of_slab[page // self.slab_pages] += 1
            table.pages.append(page)
        self._tables[table] = None
        self.num_referenced += num_missing
        return True

    def release(self, *tables: PageTable) -> None:
        """Empties the tables of a sequence. Its last pages become free first, since more sequences can use an early
        one. Those of the same tokens follow each other, since one group of layers has no use for them alone.
        """
        if len(tables) == 1:
            self._let_go(reversed(tables[0].held), len(tables[0].held))
        else:
            for index in reversed(range(max(len(table.pages) for table in tables))):
                pages = [table.pages[index] for table in tables if table.num_dropped <= index < len(table.pages)]
                self._let_go(pages, len(pages))
        for table in tables:
            table.pages = array("i")
            table.num_registered = table.num_dropped = 0
            self._tables.pop(table, None)

    def drop(self, table: PageTable, num_pages: int) -> None:
        """Releases the pages before the num_pages-th, which the sequence reads no more. What they hold can be found
        until they are reused.
        """
        pages = table.pages[table.num_dropped : num_pages]
        self._let_go(pages, len(pages))
        table.num_dropped = num_pages

    def _let_go(self, pages: Iterable[int], num_pages: int) -> None:
        self.num_referenced -= num_pages
        for page in pages:
            self._num_holders[page] -= 1
            if not self._num_holders[page]:
                self._num_held_of_slab[page // self.slab_pages] -= 1
                free = self._kept if page in self.prefixes else self._blank
                free[page] = None

    def add_slab(self, slab: int) -> None:
        """Adds the pages of a slab. They hold nothing, so they are taken first."""
        self.slabs.add(slab)
        self._blank.update(dict.fromkeys(reversed(self._pages_of(slab))))

    def give_up_slab(self) -> int:
        """Gives up the slab with the fewest held pages, and moves those to other slabs. Returns the slab.

        At least as many pages must be free as a slab has.
        """
        assert self.num_free >= self.slab_pages
        slab = min(self.slabs, key=self._num_held_of_slab.__getitem__)
        held = [page for page in self._pages_of(slab) if self._num_holders[page]]
        free = [page for page in self._pages_of(slab) if not self._num_holders[page]]
        for page in free:
            del (self._blank if page in self._blank else self._kept)[page]
        self.prefixes.forget(free)
        moves = dict(zip(held, self._take_free(len(held)), strict=True))
        self.slabs.remove(slab)
        if self._tables:
            self._move(moves, slab)
        self._num_held_of_slab[slab] = 0
        return slab

    def _move(self, moves: dict[int, int], slab: int) -> None:
        """Moves held pages, from -> to, with their contents, holders and keys. No table names any page of the slab
        afterwards, not even among those that it dropped: its bytes may soon be no numbers of this model.
        """
        if moves:
            self._copy(list(moves.items()))
        new_numbers = np.arange(self.num_pages, dtype=np.int32)
        new_numbers[self._pages_of(slab)] = min(self.slabs) * self.slab_pages
        for page, target in moves.items():
            self._num_holders[target], self._num_holders[page] = self._num_holders[page], 0
            self._num_held_of_slab[target // self.slab_pages] += 1
            new_numbers[page] = target
        self.prefixes.renumber(moves)
        for table in self._tables:
            table.renumber(new_numbers)

    def check(self, tables: Iterable[PageTable]) -> None:
        """Raises AssertionError unless free + held = total and every page has as many holders as tables name it."""
        num_named = [0] * self.num_pages
        for table in tables:
            assert len(set(table.held)) == len(table.held), "a table names a page twice"
            assert not table.pages or table in self._tables, "a table with pages is unknown to the pool"
            assert all(page // self.slab_pages in self.slabs for page in table.pages), "a table names a lost page"
            for page in table.held:
                num_named[page] += 1
        assert num_named == self._num_holders.tolist(), "holders are not those that the tables name"
        owned = {page for slab in self.slabs for page in self._pages_of(slab)}
        held = {page for page, count in enumerate(num_named) if count}
        of_slabs = Counter(page // self.slab_pages for page in held)
        expected = [of_slabs[slab] for slab in range(len(self._num_held_of_slab))]
        assert self._num_held_of_slab == expected, "a slab's held pages are miscounted"
        free = self._blank.keys() | self._kept.keys()
        assert len(free) == self.num_free, "a page is free twice"
        assert not any(page in self.prefixes for page in self._blank), "a blank page is findable"
        assert not held & free, "a free page is held"
        assert held | free == owned, "free + held is not what the pool owns"
        assert sum(num_named) == self.num_referenced, "references are miscounted"
        assert all(page in owned for page in range(self.num_pages) if page in self.prefixes), "a lost page is findable"
        self.prefixes.check()

    def _take_free(self, num_pages: int) -> list[int]:
        """Takes free pages, of which there are enough, and forgets what could be found in them."""
        blank = [self._blank.popitem()[0] for _ in range(min(num_pages, len(self._blank)))]
        kept = [self._kept.popitem(last=False)[0] for _ in range(num_pages - len(blank))]
        self.prefixes.forget(kept)
        return blank + kept

    def _pages_of(self, slab: int) -> range:
        return range(slab * self.slab_pages, (slab + 1) * self.slab_pages)
