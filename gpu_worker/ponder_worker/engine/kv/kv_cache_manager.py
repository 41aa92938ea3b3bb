"""Gives sequences their pages, and decides what becomes of the pages that they release."""

from collections.abc import Sequence as Series
from dataclasses import dataclass, field

from ponder_worker.engine.counters import Counters
from ponder_worker.engine.kv.kv_offload import KVOffload
from ponder_worker.engine.kv.page_pool import PagePairs, PagePool
from ponder_worker.engine.kv.prefix_cache import PrefixMatch
from ponder_worker.engine.kv.slab_allocator import SlabAllocator
from ponder_worker.engine.page_table import PageTable
from ponder_worker.engine.sequence import Sequence


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
    """

    def __init__(self, pool: PagePool, slabs: SlabAllocator, offload: KVOffload | None, counters: Counters) -> None:
        self.pool = pool
        self._slabs = slabs
        self._offload = offload
        self._counters = counters

    def begin_step(self) -> None:
        """Must be called before a step is planned."""
        if self._offload is not None:
            self._offload.begin_step()

    def grow(self, table: PageTable, num_tokens: int) -> bool:
        """Holds pages for so many tokens in all. Returns False if free pages and free slabs are too few."""
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
        """Looks up which pages already hold the front of the sequence's tokens."""
        sequence.table.key_tokens(sequence.tokens, self.pool.page_size)
        return self.pool.prefixes.match(sequence.table, sequence.tokens)

    def pages_needed(self, sequence: Sequence, match: PrefixMatch) -> int:
        """Returns how many free pages it takes to hold all that can be computed of the sequence."""
        num_missing = self.pool.pages_for(sequence.num_computable) - len(match.pages)
        return num_missing + self.pool.count_free(match.pages)

    def share(self, sequence: Sequence, match: PrefixMatch) -> None:
        """Makes the sequence hold the pages found, before it grows to the rest."""
        self.pool.share(sequence.table, match.pages)

    def fill(self, sequence: Sequence, match: PrefixMatch, transfers: PageTransfers) -> None:
        """Sets how much of the sequence is computed once its pages are held, and adds the copies that this takes."""
        table, page_size = sequence.table, self.pool.page_size
        num_found = len(match.pages) * page_size
        num_filled = self._restore(sequence, len(match.pages), transfers) or num_found
        if match.num_partial and num_filled == num_found < sequence.first_needed:
            target = table.pages[len(match.pages)]
            if self._copy(match.partial_page, target, transfers):
                num_filled += match.num_partial
        sequence.num_computed = min(num_filled, sequence.first_needed)
        if not sequence.most_computed:  # a preempted sequence would find its own pages
            self._counters.prefix_queries += sequence.num_computable
            self._counters.prefix_hits += sequence.num_computed

    def register(self, sequence: Sequence, end: int) -> int:
        """Makes the pages filled by tokens up to `end` findable. Call it only for tokens that are sure to be computed.

        Returns the first position that the sequence writes itself: before it stand pages registered earlier. A page
        that ends with a token still being sampled has no key yet and is registered with a later step.
        """
        table, page_size = sequence.table, self.pool.page_size
        write_from = table.num_registered * page_size
        if end - write_from >= page_size:
            table.key_tokens(sequence.tokens, page_size)
            self.pool.prefixes.register(table, min(end, len(sequence.tokens)))
        return write_from

    def register_partial(self, sequence: Sequence, end: int) -> None:
        """Lets other sequences copy the page that computed tokens up to `end` fill in part."""
        self.pool.prefixes.register_partial(sequence.table, sequence.tokens, end)

    def preempt(self, sequence: Sequence) -> None:
        """Releases the pages of a sequence that will go on, and saves them in host memory if that pays."""
        if self._offload is not None:
            self._offload.save(sequence, self.pool)
        self.finish(sequence)

    def finish(self, sequence: Sequence) -> None:
        """Releases the pages. What they hold can be found until they are reused."""
        self.register(sequence, sequence.num_computed)
        self.register_partial(sequence, sequence.num_computed)
        self.pool.release(sequence.table)

    def drop(self, sequence: Sequence) -> None:
        """Releases what the sequence holds in the pool and in host memory, with nothing new registered."""
        self.pool.release(sequence.table)
        if self._offload is not None:
            self._offload.drop(sequence)

    def check(self, sequences: Series[Sequence]) -> None:
        """Raises AssertionError unless every page is free, or held by exactly the sequences that name it."""
        self.pool.check(sequence.table for sequence in sequences)
        if self._offload is not None:
            self._offload.check(sequences)

    def _copy(self, page: int, target: int, transfers: PageTransfers) -> bool:
        """Adds a copy. Returns whether the target will hold what is in the page."""
        if page == target:  # it was free, and was the first to be taken
            return True
        if any(target == source for source, _ in transfers.copies):  # they are made in any order
            return False
        transfers.copies.append((page, target))
        self._counters.num_copied_pages += 1
        return True

    def _restore(self, sequence: Sequence, num_found: int, transfers: PageTransfers) -> int:
        """Returns how many tokens are in pages once the returns are made; 0 if nothing returns."""
        if self._offload is None or sequence.offloaded is None:
            return 0
        num_tokens, returns = self._offload.restore(sequence, num_found)
        transfers.returns.extend(returns)
        self._counters.returned_tokens += max(0, num_tokens - num_found * self.pool.page_size)
        return num_tokens
