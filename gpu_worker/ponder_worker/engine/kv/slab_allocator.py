"""One memory for the pages of several models, which trade it slab by slab."""

from collections.abc import Callable, Iterator, Mapping
from collections.abc import Sequence as Series
from itertools import count
from typing import Protocol

from ponder_worker.engine.kv.page_pool import PagePool
from ponder_worker.engine.kv.page_table import PageTable
from ponder_worker.engine.scheduling.waiting_queue import Urgency, urgency
from ponder_worker.engine.sequence import Sequence

_FIRST: Urgency = (-1, 0)
"""More urgent than everybody."""


class SlabOwner(Protocol):
    """Whose pages stand in slabs: a scheduler, between two of its steps when others ask it for one."""

    @property
    def pool(self) -> PagePool: ...

    @property
    def running(self) -> Series[Sequence]:
        """Most urgent first, then oldest."""

    def expected_pages(self) -> int:
        """That those running are still going to take."""

    def preempt_youngest(self) -> Sequence: ...

    def rename(self, moves: Mapping[int, int]) -> None:
        """The contents of held pages go from -> to, and the tables name the new ones."""


class SlabAllocator:
    """Who owns which slab. A slab goes to whom lacks pages, from whom has enough of them that nobody holds.

    Where nobody has, the youngest of the lowest priority gives way, whichever model it belongs to. A tenant below its
    floor, its half of an equal share, need not be older. So what is oldest of all always goes on.
    """

    def __init__(self, num_slabs: int = 0, clear: Callable[[int], None] = lambda slab: None) -> None:
        """clear(slab): what stands there means nothing to the next owner."""
        self.num_slabs = num_slabs
        self.numbers = count()  # the order in which sequences arrive, of all tenants
        self._clear = clear
        self._unowned = list(reversed(range(num_slabs)))
        self._tenants: list[SlabOwner] = []

    @property
    def floor(self) -> int:
        """Slabs that a tenant gets even if others have to give way."""
        return self.num_slabs // (2 * len(self._tenants)) if len(self._tenants) > 1 else 0

    def join(self, tenant: SlabOwner) -> None:
        self._tenants.append(tenant)

    def most_pages(self, tenant: SlabOwner) -> int:
        """That a tenant gets if it has to."""
        if not self.num_slabs:
            return tenant.pool.num_pages
        return (self.num_slabs - self.floor * (len(self._tenants) - 1)) * tenant.pool.slab_pages

    def spare_pages(self, tenant: SlabOwner) -> int:
        """That a tenant may get beside those it owns, without anybody giving way unless it is below its floor."""
        spare = len(self._unowned)
        for donor in self._others(tenant):
            spare += max(0, donor.pool.num_free - donor.expected_pages()) // donor.pool.slab_pages
        return max(spare, self.floor - len(tenant.pool.slabs)) * tenant.pool.slab_pages

    def pressable_pages(self, tenant: SlabOwner, rank: Urgency, enough: int) -> int:
        """That a tenant may get if all who are less urgent than `rank` elsewhere give way; `enough` will do."""
        wanted = -(-enough // tenant.pool.slab_pages)
        slabs = len(self._unowned)
        for donor in self._others(tenant):
            pool = donor.pool
            most = min(wanted - slabs, len(pool.slabs) - self.floor)
            freed = pool.num_free_after(_leaving(donor, rank), most * pool.slab_pages)
            slabs += max(pool.num_free // pool.slab_pages, min(freed // pool.slab_pages, most))
        return slabs * tenant.pool.slab_pages

    def take_unowned(self, tenant: SlabOwner) -> bool:
        """One more slab, if there is one that nobody owns."""
        if not self._unowned:
            return False
        tenant.pool.add_slab(self._unowned.pop())
        return True

    def take(self, tenant: SlabOwner) -> bool:
        """One more slab, if there is one of which somebody needs no page."""
        if self.take_unowned(tenant):
            return True
        for donor in self._others(tenant):
            if donor.pool.num_free >= donor.pool.slab_pages:
                slab, moves = donor.pool.vacate()
                if moves:
                    donor.rename(moves)
                self._clear(slab)
                tenant.pool.add_slab(slab)
                return True
        return False

    def press(self, tenant: SlabOwner, rank: Urgency) -> bool:
        """One more slab, if those who are less urgent than `rank` elsewhere can make one free: they are preempted."""
        below = len(tenant.pool.slabs) < self.floor
        for donor in self._others(tenant):
            pool = donor.pool
            if len(pool.slabs) <= self.floor:
                continue
            leaving = _leaving(donor, _FIRST if below else rank)
            if pool.num_free_after(leaving, pool.slab_pages) >= pool.slab_pages:
                while pool.num_free < pool.slab_pages:
                    donor.preempt_youngest()
                return self.take(tenant)
        return False

    def check(self) -> None:
        """AssertionError unless every slab is owned by one tenant or by nobody."""
        owned = [slab for tenant in self._tenants for slab in tenant.pool.slabs if self.num_slabs]
        assert sorted([*self._unowned, *owned]) == list(range(self.num_slabs)), "a slab is lost, or has two owners"

    def _others(self, tenant: SlabOwner) -> list[SlabOwner]:
        """Who has the most free pages comes first."""
        others = [other for other in self._tenants if other is not tenant]
        return sorted(others, key=lambda other: -other.pool.num_free / other.pool.slab_pages)


def _leaving(donor: SlabOwner, rank: Urgency) -> Iterator[PageTable]:
    """Of those less urgent than `rank`, in the order in which they are preempted."""
    for sequence in reversed(donor.running):
        if urgency(sequence) <= rank:
            return
        yield sequence.table
