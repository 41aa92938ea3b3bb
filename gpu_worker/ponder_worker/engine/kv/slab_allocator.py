"""Divides one memory among the pages of several models, slab by slab."""

from collections.abc import Callable, Iterator
from itertools import count
from typing import Protocol

from ponder_worker.engine.kv.page_pool import PagePool
from ponder_worker.engine.page_table import PageTable
from ponder_worker.engine.sequence import MOST_URGENT, Urgency


class SlabOwner(Protocol):
    """A model's claim on the slabs: its pool, and the sequences that hold the pool's pages.

    A model short of pages may need those of another model's sequences. Which of these give way is a decision of the
    other model's scheduler, so the allocator asks for it here. Nothing else in `kv` calls into `scheduling`. It is
    called between two steps of the owner.
    """

    @property
    def pool(self) -> PagePool: ...

    def expected_pages(self) -> int:
        """Returns how many more pages the running sequences are expected to take."""

    def tables_below(self, urgency: Urgency) -> Iterator[PageTable]:
        """Yields the tables of running sequences that are less urgent, in the order in which they are preempted."""

    def preempt_least_urgent(self) -> object:
        """Releases the pages of the running sequence that is preempted first."""


class SlabAllocator:
    """Knows which model owns which slab. A slab moves from a model with spare pages to one that needs them.

    If no model has a spare slab, the least urgent sequences are preempted, whichever model they belong to. A model
    with fewer slabs than it is guaranteed, which is half of an equal share, takes precedence over all of them.
    The most urgent sequence of all therefore always makes progress.
    """

    def __init__(self, num_slabs: int = 0, clear: Callable[[int], None] = lambda slab: None) -> None:
        """Starts with all slabs unowned; num_slabs is 0 where each model has a memory of its own.

        clear(slab): erases what the former owner wrote.
        """
        self.num_slabs = num_slabs
        self.arrivals = count()  # numbers the sequences of all models, so that their ages can be compared
        self._clear = clear
        self._unowned = list(reversed(range(num_slabs)))
        self._owners: list[SlabOwner] = []

    @property
    def num_guaranteed(self) -> int:
        """Slabs that a model gets even if sequences of other models are preempted for it."""
        return self.num_slabs // (2 * len(self._owners)) if len(self._owners) > 1 else 0

    def join(self, owner: SlabOwner) -> None:
        self._owners.append(owner)

    def max_pages(self, pool: PagePool) -> int:
        """Returns the most pages that the pool can get."""
        if not self.num_slabs:
            return pool.num_pages
        return (self.num_slabs - self.num_guaranteed * (len(self._owners) - 1)) * pool.slab_pages

    def spare_pages(self, pool: PagePool) -> int:
        """Returns how many more pages the pool may get before it takes those of sequences elsewhere.

        Below the guarantee, the pages up to it count as spare.
        """
        spare = len(self._unowned)
        for donor in self._others(pool):
            spare += max(0, donor.pool.num_free - donor.expected_pages()) // donor.pool.slab_pages
        return max(spare, self.num_guaranteed - len(pool.slabs)) * pool.slab_pages

    def reclaimable_pages(self, pool: PagePool, urgency: Urgency, num_wanted: int) -> int:
        """Returns how many more pages the pool may get if everything less urgent elsewhere is preempted.

        It stops counting once there are `num_wanted`.
        """
        wanted = -(-num_wanted // pool.slab_pages)
        slabs = len(self._unowned)
        for donor in self._others(pool):
            given = donor.pool
            most = min(wanted - slabs, len(given.slabs) - self.num_guaranteed)
            freed = given.num_free_after(donor.tables_below(urgency), most * given.slab_pages)
            slabs += max(given.num_free // given.slab_pages, min(freed // given.slab_pages, most))
        return slabs * pool.slab_pages

    def take_unowned(self, pool: PagePool) -> bool:
        """Gives the pool a slab that no model owns. Returns False if there is none."""
        if not self._unowned:
            return False
        pool.add_slab(self._unowned.pop())
        return True

    def take_free(self, pool: PagePool) -> bool:
        """Gives the pool a slab that no model owns, or that another model's free pages can make up."""
        if self.take_unowned(pool):
            return True
        for donor in self._others(pool):
            if donor.pool.num_free >= donor.pool.slab_pages:
                slab = donor.pool.give_up_slab()
                self._clear(slab)
                pool.add_slab(slab)
                return True
        return False

    def reclaim(self, pool: PagePool, urgency: Urgency) -> bool:
        """Gives the pool a slab by preempting less urgent sequences of another model.

        Returns False, and preempts none, if that would not free a whole slab.
        """
        if len(pool.slabs) < self.num_guaranteed:
            urgency = MOST_URGENT
        for donor in self._others(pool):
            given = donor.pool
            if len(given.slabs) <= self.num_guaranteed:
                continue
            if given.num_free_after(donor.tables_below(urgency), given.slab_pages) >= given.slab_pages:
                while given.num_free < given.slab_pages:
                    donor.preempt_least_urgent()
                return self.take_free(pool)
        return False

    def check(self) -> None:
        """Raises AssertionError unless every slab has one owner or none."""
        owned = [slab for owner in self._owners for slab in owner.pool.slabs if self.num_slabs]
        assert sorted([*self._unowned, *owned]) == list(range(self.num_slabs)), "a slab is lost, or has two owners"

    def _others(self, pool: PagePool) -> list[SlabOwner]:
        """Returns the other owners; the one with the most free slabs comes first."""
        others = [owner for owner in self._owners if owner.pool is not pool]
        return sorted(others, key=lambda owner: -owner.pool.num_free / owner.pool.slab_pages)
