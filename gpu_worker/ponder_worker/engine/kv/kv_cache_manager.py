"""Gives sequences their pages, and decides what becomes of the pages that they release."""

from collections.abc import Sequence as Series
from dataclasses import dataclass, field

from ponder_worker.engine.counters import Counters
from ponder_worker.engine.kv.kv_offload import KVOffload
from ponder_worker.engine.kv.page_pool import PagePairs, PagePool
from ponder_worker.engine.kv.prefix_cache import PrefixMatch, Window
from ponder_worker.engine.kv.slab_allocator import SlabAllocator
from ponder_worker.engine.page_table import PageTable
from ponder_worker.engine.sequence import OffloadedPages, Sequence

_UNLIMITED = 1 << 31
"""More pages than any sequence has tokens."""


@dataclass(frozen=True, slots=True)
class PageTransfers:
    """Copies that a step makes before it computes anything, (from, to).

    copies: within the pool; they may be made in any order, since no page is in both columns.
    returns: from host memory to the pool, made after `copies`.
    """

    copies: PagePairs = field(default_factory=list)
    returns: PagePairs = field(default_factory=list)


class KVCacheManager:
    """Manages the pages of one model's sequences.

    Pages come from the pool, and slabs for the pool from the allocator as long as they are free. Whether a sequence
    has to give way is decided by the scheduler, which the manager never calls.

    A sequence has a table for each group of the model's layers. Their pages are of one size and come from one pool. All
    tables are computed, registered and matched together; only what they give back depends on their windows.
    """

    def __init__(
        self,
        pool: PagePool,
        slabs: SlabAllocator,
        offload: KVOffload | None,
        counters: Counters,
        *,
        windows: Series[int | None],
        max_step_tokens: int,
    ) -> None:
        """Makes a manager of one pool. windows: `[num_groups]`, the tokens that a group of layers looks back on, or
        None for all; those with a window come first. max_step_tokens: the most tokens that a step computes.
        """
        self.pool = pool
        self._windows = [None if window is None else Window(window, pool.page_size) for window in windows]
        self._max_step_tokens = max_step_tokens
        self._slabs = slabs
        self._offload = offload
        self._counters = counters

    def begin_step(self) -> None:
        """Must be called before a step is planned."""
        if self._offload is not None:
            self._offload.begin_step()

    def open(self, sequence: Sequence) -> None:
        """Gives a sequence that arrives its tables."""
        salt = sequence.table.salt
        sequence.other_tables = tuple(PageTable(salt, group) for group in range(1, len(self._windows)))

    def longest(self, max_pages: int) -> int:
        """Returns how many pages of tokens a sequence may have that never holds more than `max_pages` pages."""
        most = [window.most_pages(self._max_step_tokens) for window in self._windows if window is not None]
        num_pages = max_pages // len(self._windows)
        if not most or num_pages <= most[0]:
            return num_pages
        num_others = len(self._windows) - len(most)
        return (max_pages - sum(most)) // num_others if num_others else _UNLIMITED

    def grow(self, sequence: Sequence, num_tokens: int) -> bool:
        """Holds pages for so many tokens in all. Returns False if free pages and free slabs are too few."""
        for table in sequence.other_tables:
            if not self._grow(table, num_tokens):
                return False
        return self._grow(sequence.table, num_tokens)

    def begin(self, sequence: Sequence, match: PrefixMatch, room: int) -> bool:
        """Holds the first pages of a sequence, beside those found: for all that can be computed of it, and where there
        is a window, for what a step of `room` tokens computes. Returns False as `grow` does.
        """
        known = sequence.num_computable
        first_step = min(known, min(match.num_tokens + match.num_partial, sequence.first_needed) + room)
        wanted = (known if window is None else max(match.num_tokens, first_step) for window in self._windows)
        if not all(map(self._grow, sequence.tables, wanted)):
            return False
        for table in sequence.tables:
            table.cover_dropped()
        return True

    def _grow(self, table: PageTable, num_tokens: int) -> bool:
        pool, slabs = self.pool, self._slabs
        if len(table.pages) * pool.page_size >= num_tokens:
            return True
        # A slab that nobody owns is better than evicting a page that could be found again.
        while pool.evicts(pool.pages_for(num_tokens) - len(table.pages)) and slabs.take_unowned(pool):
            pass
        while not pool.grow(table, num_tokens):
            if not slabs.take_free(pool):
                return False
        return True

    def match(self, sequence: Sequence) -> PrefixMatch:
        """Looks up which pages already hold the front of the sequence's tokens, on the device and in host memory."""
        for table in sequence.tables:
            table.key_tokens(sequence.tokens, self.pool.page_size)
        found = self.pool.prefixes.match(sequence.tables, sequence.tokens, self._windows, sequence.first_needed)
        offloaded = sequence.offloaded
        if offloaded is None or offloaded.num_tokens <= found.num_tokens:
            return found
        return self._match_offloaded(sequence, offloaded) or found

    def _match_offloaded(self, sequence: Sequence, offloaded: OffloadedPages) -> PrefixMatch | None:
        """Looks up the pages that come before the offloaded ones. Returns None if one of them is missing."""
        position, end = min(offloaded.num_tokens, sequence.first_needed), offloaded.num_tokens // self.pool.page_size
        firsts = [0 if window is None else window.first_page(position) for window in self._windows]
        tables = sequence.tables
        pages = [self.pool.prefixes.run(table, first, end) for table, first in zip(tables, firsts, strict=True)]
        match = PrefixMatch(offloaded.num_tokens, pages, firsts, returns=True)
        joins = all(end >= first for end, first in zip(match.ends, offloaded.firsts, strict=True))
        return match if joins else None

    def pages_needed(self, sequence: Sequence, match: PrefixMatch) -> int:
        """Returns how many free pages it takes to compute all that can be computed of the sequence."""
        pool, num_needed = self.pool, 0
        num_all = pool.pages_for(sequence.num_computable)
        for pages, end, window in zip(match.pages, match.ends, self._windows, strict=True):
            num_found = pool.count_free(pages)
            most = num_found + num_all - end
            if window is not None:  # what falls out of it on the way makes room for the rest
                most = min(most, max(num_found, window.most_pages(self._step_tokens(sequence))))
            num_needed += most
        return num_needed

    def pages_ahead(self, sequence: Sequence, num_tokens: int) -> int:
        """Returns how many more pages the sequence takes until it has so many tokens.

        A running one that generates takes at least one, however long it is, unless it holds all that a window can have
        need of. Those for the known tokens of a waiting one are not counted.
        """
        pool, least = self.pool, int(sequence.sampling is not None)
        num_known = pool.pages_for(len(sequence.tokens))
        num_ahead = 0
        for table, window in zip(sequence.tables, self._windows, strict=True):
            num_held = len(table.pages)
            if window is None:
                num_ahead += max(least, pool.pages_for(num_tokens) - max(num_held, num_known))
                continue
            most = window.most_pages(self._step_tokens(sequence))
            own = len(table.held) - pool.count_shared(table.held) if num_held else num_known
            num_ahead += max(0, min(max(least, pool.pages_for(num_tokens) - (num_held or num_known)), most - own))
        return num_ahead

    def _step_tokens(self, sequence: Sequence) -> int:
        """Returns the most tokens of the sequence that a step still computes."""
        return max(1, min(self._max_step_tokens, sequence.num_computable - sequence.num_computed))

    def share(self, sequence: Sequence, match: PrefixMatch) -> None:
        """Makes the sequence hold the pages found, before it takes any others."""
        for table, pages, num_skipped in zip(sequence.tables, match.pages, match.num_skipped, strict=True):
            self.pool.share(table, pages, num_skipped)

    def fill(self, sequence: Sequence, match: PrefixMatch, transfers: PageTransfers) -> None:
        """Sets how much of the sequence is computed once its pages are held, and adds the copies that this takes."""
        num_filled, tables = match.num_tokens, sequence.tables
        if match.returns:
            transfers.returns.extend(self._return(sequence, match))
        elif match.num_partial and num_filled < sequence.first_needed:
            targets = (table.pages[end] for table, end in zip(tables, match.ends, strict=True))
            pairs = list(zip(match.partial_pages, targets, strict=True))
            if all(self._copy(page, target, transfers) for page, target in pairs):
                num_filled += match.num_partial
        if self._offload is not None:
            self._offload.drop(sequence)
        sequence.num_computed = min(num_filled, sequence.first_needed)
        if not sequence.most_computed:  # a preempted sequence would find its own pages
            self._counters.prefix_queries += sequence.num_computable
            self._counters.prefix_hits += sequence.num_computed

    def trim(self, sequence: Sequence) -> None:
        """Releases the pages that no token still to be computed looks back on.

        Those of the whole page's last boundary stay, so that the sequence can be continued once it has ended.
        """
        window = self._windows[0]
        if window is None:  # then no group has one
            return
        position = sequence.num_computed
        first = window.first_page(position - position % self.pool.page_size)
        for table, of_group in zip(sequence.tables, self._windows, strict=True):
            num_pages = min(first, table.num_registered)
            if of_group is not None and num_pages > table.num_dropped:
                self.pool.drop(table, num_pages)

    def register(self, sequence: Sequence, end: int) -> int:
        """Makes the pages filled by tokens up to `end` findable. Call it only for tokens that are sure to be computed.

        Returns the first position that the sequence writes itself: before it stand pages registered earlier. A page
        that ends with a token still being sampled has no key yet and is registered with a later step.
        """
        page_size = self.pool.page_size
        write_from = sequence.table.num_registered * page_size  # every table has registered as much
        if end - write_from >= page_size:
            for table in sequence.tables:
                table.key_tokens(sequence.tokens, page_size)
                self.pool.prefixes.register(table, min(end, len(sequence.tokens)))
        return write_from

    def register_partial(self, sequence: Sequence, end: int) -> None:
        """Lets other sequences copy the page that computed tokens up to `end` fill in part."""
        for table in sequence.tables:
            self.pool.prefixes.register_partial(table, sequence.tokens, end)

    def preempt(self, sequence: Sequence) -> None:
        """Releases the pages of a sequence that will go on, and saves them in host memory if that pays."""
        if self._offload is not None:
            self._offload.save(sequence, self.pool)
        self.finish(sequence)

    def finish(self, sequence: Sequence) -> None:
        """Releases the pages. What they hold can be found until they are reused."""
        self.register(sequence, sequence.num_computed)
        self.register_partial(sequence, sequence.num_computed)
        self.pool.release(*sequence.tables)

    def drop(self, sequence: Sequence) -> None:
        """Releases what the sequence holds in the pool and in host memory, with nothing new registered."""
        self.pool.release(*sequence.tables)
        if self._offload is not None:
            self._offload.drop(sequence)

    def check(self, sequences: Series[Sequence]) -> None:
        """Raises AssertionError unless every page is free, or held by exactly the sequences that name it."""
        self.pool.check(table for sequence in sequences for table in sequence.tables)
        if self._offload is not None:
            self._offload.check(sequences)

    def _copy(self, page: int, target: int, transfers: PageTransfers) -> bool:
        """Adds a copy. Returns whether the target will hold what is in the page."""
        if page == target:  # it was free, and was the first to be taken
            return True
        if any(target == source or page == other for source, other in transfers.copies):  # they are made in any order
            return False
        transfers.copies.append((page, target))
        self._counters.num_copied_pages += 1
        return True

    def _return(self, sequence: Sequence, match: PrefixMatch) -> PagePairs:
        """Returns the copies, (from the host, to the pool), that complete the pages found."""
        offloaded, returns = sequence.offloaded, PagePairs()
        assert offloaded is not None
        for table, end, first, pages in zip(
            sequence.tables, match.ends, offloaded.firsts, offloaded.pages, strict=True
        ):
            sources = pages[end - first :]
            returns += zip(sources, table.pages[end : end + len(sources)], strict=True)
            self.pool.prefixes.register(table, min(match.num_tokens, len(sequence.tokens)))
        self._counters.returned_tokens += match.num_tokens - min(match.ends) * self.pool.page_size
        return returns
