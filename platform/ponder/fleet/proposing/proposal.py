"""The plans of all models within the scope of an autoscaler, for itself and for an operator who asks."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from sqlalchemy import Connection

from ponder.domain.batch.request import ServedModel
from ponder.errors import NotFound
from ponder.fleet import roster
from ponder.fleet.decision import History, Rules, suspects
from ponder.fleet.plan import plan
from ponder.fleet.problem import Bounds, Plan, Situation
from ponder.fleet.proposing.scope import Inquiry, Place, Scope, active_scope
from ponder.fleet.provider import Pool
from ponder.fleet.situation import situations
from ponder.fleet.targets import Want, targets_of, wants_of
from ponder.jobs.served import served_models
from ponder.ledger.price_book import Price, list_prices, price_at

_WHY_NOT_PINNED = "these jobs are pinned to former weights, which a new worker would not have: none is wanted for them"


@dataclass(frozen=True, slots=True)
class Proposal:
    """A model's plan, the situation that it rests on, and the workers to have.

    is_unplaced: workers are missing, and nothing says on which machine the model fits.
    """

    situation: Situation
    plan: Plan
    wants: tuple[Want, ...]
    is_unplaced: bool = False

    @property
    def model(self) -> str:
        return self.situation.model

    def explained(self) -> Iterator[Want]:
        """Yields the workers with all reasons for their number, for the log: also what will be late nevertheless."""
        late = self.plan.reasons[:-1] if self.plan.late_tokens else ()
        for want in self.wants:
            yield replace(want, reason="; ".join((want.reason, *late)))


def situations_within(connection: Connection, scope: Scope) -> list[Situation]:
    """Returns the situations of the models of a scope, also of those that no worker has served yet."""
    if not scope.models:
        return situations(connection)
    found: list[Situation] = []
    for model in scope.models:
        try:
            found += situations(connection, model)
        except NotFound:
            found.append(Situation(model, None, (), (), (), None, 0.0))
    return found


def propose(
    connection: Connection, scope: Scope, failing: Collection[Pool], found: Sequence[Situation]
) -> list[Proposal]:
    """Returns the proposals for some situations. `failing` are pools in which starts have just failed."""
    return _Proposer(served_models(connection), list_prices(connection), scope, failing).proposals(found)


@dataclass(frozen=True, slots=True)
class _Proposer:
    served: Mapping[str, ServedModel]
    prices: Sequence[Price]
    scope: Scope
    failing: Collection[Pool]

    def proposals(self, found: Sequence[Situation]) -> list[Proposal]:
        return [self._proposal(self._bound(situation)) for situation in found]

    def _bound(self, situation: Situation) -> Situation:
        offers = (
            replace(offer, may_start=self._may_start(situation.model, (offer.machine, offer.market)))
            for offer in situation.offers
        )
        return replace(situation, offers=tuple(offers))

    def _proposal(self, situation: Situation) -> Proposal:
        planned, newest = plan(situation, self.scope.bounds), self.served.get(situation.model)
        if newest is not None and situation.fingerprint not in (None, newest.fingerprint):
            return Proposal(situation, replace(planned, reasons=(_WHY_NOT_PINNED,)), ())
        wants = tuple(wants_of(situation.model, situation.offers, planned))
        is_short = newest is None or planned.late_tokens or planned.num_workers < self.scope.bounds.min_workers
        if not is_short or any(offer.may_start for offer in situation.offers):
            return Proposal(situation, planned, wants)
        first = self._first(situation.model, is_known=newest is not None)
        if first is not None:
            # The plan's reasons are why it has no such worker itself.
            return Proposal(situation, replace(planned, reasons=()), (*wants, first))
        is_unplaced = not situation.offers and not self.scope.named
        return Proposal(situation, planned, wants, is_unplaced=is_unplaced)

    def _first(self, model: str, *, is_known: bool) -> Want | None:
        """Returns a first worker, or the minimum, of a model that was timed on no machine that may be started."""
        prices = [price for price in self.prices if self._may_explore(model, price)]
        if not prices:
            return None
        cheapest = min(prices, key=lambda price: price.nanodollars_per_hour)
        why = "to learn how fast it is there" if is_known else "none has served it yet, so jobs cannot ask for it"
        pool = Pool(model, cheapest.machine, cheapest.market)
        num_workers = max(1, self.scope.bounds.min_workers)
        return Want(pool, num_workers, cheapest.nanodollars_per_hour, f"a first worker of {model}: {why}")

    def _may_explore(self, model: str, price: Price) -> bool:
        place = price.machine, price.market
        return place in self.scope.named and self._may_start(model, place)

    def _may_start(self, model: str, place: Place) -> bool:
        return place in self.scope.offered and Pool(model, *place) not in self.failing


def why_unplaced(model: str) -> str:
    return f"no job of {model} was timed on any machine: name one that it fits with --machine MACHINE:MARKET"


@dataclass(frozen=True, slots=True)
class Answer:
    """A proposal, and how many workers of each pool the bounds allow beside those of other models.

    reasons: what concerns the model's workers as a whole. is_acted_on: the active autoscaler acts on it.
    """

    proposal: Proposal
    allowed: Mapping[Pool, int]
    reasons: tuple[str, ...]
    is_acted_on: bool


@dataclass(frozen=True, slots=True)
class Answers:
    """The plans that were asked for, the scope that they keep to, and whether it is an active autoscaler's."""

    answers: Sequence[Answer]
    scope: Scope
    is_active: bool


def answer(connection: Connection, inquiry: Inquiry) -> Answers:
    """Returns the plans. Raises NotFound for an unknown model, and UnknownMachine for one without a price."""
    for place in sorted(inquiry.machines or ()):
        price_at(connection, *place)
    places = frozenset((price.machine, price.market) for price in list_prices(connection))
    own = active_scope(connection)
    anything = Scope((), Bounds(), frozenset(), places)
    scope = inquiry.scope(own or anything, places)
    found = _situations(connection, inquiry.model, None if own is None else scope)
    why_not = _why_not_now(connection, scope) if own is not None and inquiry.machines is None else {}
    covered = propose(connection, scope, why_not, [one for one in found if scope.covers(one.model)])
    answers = _answers(covered, scope.bounds, why_not, is_acted_on=own is not None and not inquiry.is_changed)
    others = [one for one in found if not scope.covers(one.model)]
    free = propose(connection, replace(anything, bounds=scope.bounds), (), others)
    for one in _answers(free, scope.bounds, {}, is_acted_on=False):
        answers.append(replace(one, reasons=(*one.reasons, "the active autoscaler does not look after this model")))
    asked = [one for one in answers if inquiry.model in (None, one.proposal.model)]
    return Answers(asked, scope, own is not None)


def _situations(connection: Connection, model: str | None, scope: Scope | None) -> list[Situation]:
    """Returns the situations that are asked about, and of all models of an autoscaler, which share its bounds."""
    if scope is None:
        return situations(connection, model)
    found = situations_within(connection, scope)
    known = {one.model for one in found}
    if model in known or (model is None and not scope.models):
        return found
    return [*found, *(one for one in situations(connection, model) if one.model not in known)]


def _why_not_now(connection: Connection, scope: Scope) -> dict[Pool, str]:
    """Returns the pools in which the active autoscaler starts nothing for now, because starts failed there."""
    rules, now = Rules(scope.bounds), roster.now(connection)
    history = History((), *roster.past(connection))
    return {
        pool: f"{history.failures[pool].num} starts on {pool.machine} ({pool.market}) failed in a row: the next one is "
        f"tried in {(rules.may_retry_at(history.failures[pool]) - now).total_seconds():.0f} s at the earliest"
        for pool in suspects(history, rules, now)
    }


def _answers(
    proposals: Sequence[Proposal], bounds: Bounds, why_not: Mapping[Pool, str], *, is_acted_on: bool
) -> list[Answer]:
    allowed = targets_of([want for proposal in proposals for want in proposal.wants], bounds)
    return [
        Answer(proposal, allowed, tuple(_reasons(proposal, allowed, why_not)), is_acted_on) for proposal in proposals
    ]


def _reasons(proposal: Proposal, allowed: Mapping[Pool, int], why_not: Mapping[Pool, str]) -> Iterator[str]:
    yield from proposal.plan.reasons
    yield from (why for pool, why in sorted(why_not.items()) if pool.model == proposal.model)
    for want in proposal.wants:
        if (number := allowed.get(want.pool, 0)) < want.num_workers:
            yield (
                f"the bounds on all models together leave {number} of the {want.num_workers} workers on "
                f"{want.pool.machine} ({want.pool.market})"
            )
