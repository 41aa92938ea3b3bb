"""The workers that the plans of all models ask for, as far as the bounds allow them together."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from ponder.fleet.problem import Bounds, Offer, Plan
from ponder.fleet.provider import Pool


@dataclass(frozen=True, slots=True)
class Want:
    """Some workers that the plan of a model asks for. Unless it `may_start` them, they run already."""

    pool: Pool
    num_workers: int
    nanodollars_per_hour: int
    reason: str
    may_start: bool = True


def wants_of(model: str, offers: Sequence[Offer], planned: Plan) -> Iterator[Want]:
    """Yields what the plan of a model asks for. `offers` are those that it was made with."""
    by_place = {(offer.machine, offer.market): offer for offer in offers}
    for wanted in planned.wanted:
        offer = by_place[wanted.machine, wanted.market]
        pool = Pool(model, wanted.machine, wanted.market)
        yield Want(pool, wanted.num_workers, offer.nanodollars_per_hour, wanted.reason, offer.may_start)


def targets_of(wants: Sequence[Want], bounds: Bounds) -> dict[Pool, int]:
    """Returns the workers of each pool that the bounds allow together. Models take turns, one worker each."""
    queues: dict[str, list[Want]] = {}
    for want in wants:
        queues.setdefault(want.pool.model, []).extend([want] * want.num_workers)
    targets: Counter[Pool] = Counter()
    spent = 0
    while any(queues.values()):
        for queue in queues.values():
            while queue:
                want = queue.pop(0)
                if fits(bounds, targets.total() + 1, spent + want.nanodollars_per_hour):
                    targets[want.pool] += 1
                    spent += want.nanodollars_per_hour
                    break
    return dict(targets)


def fits(bounds: Bounds, num_workers: int, nanodollars_per_hour: int) -> bool:
    """Returns whether so many workers that cost so much together are within the maxima."""
    most, most_nanodollars = bounds.max_workers, bounds.max_nanodollars_per_hour
    return (most is None or num_workers <= most) and (
        most_nanodollars is None or nanodollars_per_hour <= most_nanodollars
    )
