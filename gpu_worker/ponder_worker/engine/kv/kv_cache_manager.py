"""The pages that sequences hold: how they come by them, and what becomes of them."""

from collections.abc import Sequence as Series

from ponder_worker.engine.kv.kv_offload import KVOffload
from ponder_worker.engine.kv.slab_allocator import SlabAllocator, SlabOwner
from ponder_worker.engine.scheduling.step_plan import Counters, Plan
from ponder_worker.engine.scheduling.waiting_queue import Urgency
from ponder_worker.engine.sequence import Sequence


class KVCacheManager:
    """Of one tenant's sequences. Pages come from its pool, slabs for the pool from the budget."""

    def __init__(self, tenant: SlabOwner, budget: SlabAllocator, parking: KVOffload | None, counters: Counters) -> None:
        self._tenant = tenant
        self._pool = tenant.pool
        self._budget = budget
        self._parking = parking
        self._counters = counters

    def grow(self, sequence: Sequence, end: int, rank: Urgency) -> bool:
        """Pages for so many tokens, if need be from those elsewhere who are less urgent than `rank`."""
        pool, table, budget = self._pool, sequence.table, self._budget
        if len(table.pages) * pool.page_size >= end:
            return True
        # Rather a slab that nobody owns than pages that hold what could be found again.
        while pool.evicts(pool.pages_for(end) - len(table.pages)) and budget.take_unowned(self._tenant):
            pass
        while not pool.grow(table, end):
            if not (budget.take(self._tenant) or budget.press(self._tenant, rank)):
                return False
        return True

    def enter(self, plan: Plan, sequence: Sequence, kept: int, rank: Urgency) -> bool:
        """Holds all pages of what is known, those found among them; False, and nothing held, if the rest cannot fit.

        `kept` pages stay free; `rank` as in `grow`.
        """
        pool, table = self._pool, sequence.table
        table.key_tokens(sequence.tokens, pool.page_size)
        found = pool.prefixes.find(table)
        missing = pool.pages_for(sequence.num_wanted) - len(found)
        if not self._can_get(missing + pool.num_free_of(found) + kept, rank):
            return False
        page, used = pool.prefixes.find_partial(table, sequence.tokens, len(found))
        pool.share(table, found)
        grown = self.grow(sequence, sequence.num_wanted, rank)
        assert grown, "admitted without pages"
        in_pages = len(found) * pool.page_size
        num_found = self._unpark(plan, sequence, len(found)) or in_pages
        if used and num_found == in_pages < sequence.first_needed and self._copy(plan, page, table.pages[len(found)]):
            num_found += used
        sequence.num_computed = min(num_found, sequence.first_needed)
        if not sequence.num_computed_once:  # who comes back from preemption finds his own pages
            self._counters.prefix_queries += sequence.num_wanted
            self._counters.prefix_hits += sequence.num_computed
        return True

    def register(self, sequence: Sequence, end: int) -> None:
        """Others find what is known by now: a page that ends with a token that is being sampled has no key yet."""
        sequence.table.key_tokens(sequence.tokens, self._pool.page_size)
        self._pool.prefixes.register(sequence.table, min(end, len(sequence.tokens)))

    def give_back(self, sequence: Sequence, *, for_now: bool = False) -> None:
        """Others may find what stands in its pages, as long as nobody needs them. for_now: it comes again."""
        if for_now and self._parking is not None:
            self._parking.park(sequence, self._pool)
        self.register(sequence, sequence.num_computed)
        self._pool.prefixes.register_partial(sequence.table, sequence.tokens, sequence.num_computed)
        self._pool.release(sequence.table)

    def drop(self, sequence: Sequence) -> None:
        """It holds nothing any more, in host memory neither."""
        self._pool.release(sequence.table)
        if self._parking is not None:
            self._parking.leave(sequence)

    def settle(self) -> None:
        """To be called when a step is planned."""
        if self._parking is not None:
            self._parking.settle()

    def check(self, sequences: Series[Sequence]) -> None:
        """AssertionError unless every page is free or held, and held by those who name it."""
        self._pool.check(sequence.table for sequence in sequences)
        if self._parking is not None:
            self._parking.check(sequences)

    def _can_get(self, num_pages: int, rank: Urgency) -> bool:
        free = self._pool.num_free
        return (
            num_pages <= free
            or num_pages <= free + self._budget.spare_pages(self._tenant)
            or num_pages <= free + self._budget.pressable_pages(self._tenant, rank, num_pages - free)
        )

    def _copy(self, plan: Plan, page: int, target: int) -> bool:
        """Does the target hold what stands in the page once the plan's copies are made?"""
        if page == target:  # it was free, and the first to be given away
            return True
        if any(target == source for source, _ in plan.copies):  # those are made in any order
            return False
        plan.copies.append((page, target))
        self._counters.num_copied_pages += 1
        return True

    def _unpark(self, plan: Plan, sequence: Sequence, num_found: int) -> int:
        """-> tokens that stand in the table's pages once the plan's returns are made; 0 if nothing returns."""
        if self._parking is None or sequence.parked is None:
            return 0
        num_tokens, returns = self._parking.fetch(sequence, num_found)
        plan.returns.extend(returns)
        self._counters.returned_tokens += max(0, num_tokens - num_found * self._pool.page_size)
        return num_tokens
