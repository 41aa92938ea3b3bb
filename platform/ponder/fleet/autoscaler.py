"""The autoscaler: the service that has workers started and stopped as the plans of the models ask."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

import structlog
from sqlalchemy import Connection, Engine, text

from ponder.alive import show_alive
from ponder.errors import NotFound
from ponder.failure import brief
from ponder.fleet import roster
from ponder.fleet.decision import Action, Decision, History, Rules, decide, remember, suspects
from ponder.fleet.fleet_log import log_decision, prune_log
from ponder.fleet.plan import plan
from ponder.fleet.problem import Bounds, Offer, Situation
from ponder.fleet.provider import Pool, Provider
from ponder.fleet.situation import situations
from ponder.fleet.targets import Want, targets_of, wants_of
from ponder.fleet.workforce import Workforce
from ponder.jobs.served import served_models
from ponder.ledger.price_book import Price, list_prices
from ponder.settings import Settings
from ponder.store.database import connect

LEADER = 0x666C656574  # "fleet"
"""The advisory lock of the active autoscaler."""
_IS_ACTIVE = text("""
    SELECT EXISTS (
        SELECT FROM pg_locks JOIN pg_database ON pg_database.oid = database
        WHERE datname = current_database() AND locktype = 'advisory' AND granted
          AND CAST(classid AS bigint) = :high AND CAST(objid AS bigint) = :low AND objsubid = 1
    )
""")
_RETRY_S = 1.0
_PRUNE_EVERY = timedelta(hours=1)

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Orders:
    """The operator's orders: the models to look after (none: all that are known), and the bounds for their workers.

    drain_s: the time in which a worker that is too many may finish some of its work. register_within_s: the time after
    which a worker that has not registered is given up. machines: those of the price book that the operator named,
    with their markets. No other is started for a model that was never timed there, because it may not fit.
    """

    models: tuple[str, ...]
    bounds: Bounds
    drain_s: float = 120.0
    register_within_s: float = 600.0
    machines: tuple[tuple[str, str], ...] = ()


def run(database_url: str, provider: Provider, orders: Orders, settings: Settings, stop: threading.Event) -> None:
    """Starts and stops workers until `stop` is set. Any number of autoscalers may run; only one is active.

    What it has started is in Postgres, and nowhere else. It reports errors in the log, tries again, and never raises.
    Call it from the main thread, with which workers of this machine end.
    """
    engine = connect(database_url)
    while not stop.is_set():
        try:
            with _leadership(engine, provider, settings, stop) as connection:
                Autoscaler(connection, provider, orders, settings, stop).lead()
        except Exception as error:  # whatever breaks, the fleet must be looked after once it is repaired
            _log.warning("interrupted", error=brief(error), retry_s=_RETRY_S)
            stop.wait(_RETRY_S)
    provider.close()
    engine.dispose()


@contextmanager
def _leadership(engine: Engine, provider: Provider, settings: Settings, stop: threading.Event) -> Iterator[Connection]:
    """Yields the connection that holds the advisory lock.

    While another autoscaler holds it, this one has no workers of its own: on another machine they would be unknown to
    the active one, and too many. An outage of Postgres ends none. Everything is written through this connection, so
    that nothing can be ordered without the lock.
    """
    with engine.connect() as connection:
        # It must not return to the pool, because it holds the lock.
        connection.detach()
        is_leader = _try_to_lead(connection)
        if not is_leader:
            provider.close()
        while not is_leader and not stop.wait(1.0):
            show_alive(settings.alive_file)
            is_leader = _try_to_lead(connection)
        if is_leader:
            _log.info("active")
        yield connection


def _try_to_lead(connection: Connection) -> bool:
    with connection.begin():
        return bool(connection.execute(text(f"SELECT pg_try_advisory_lock({LEADER})")).scalar_one())


def is_active(connection: Connection) -> bool:
    """Returns whether some autoscaler holds the lock."""
    return bool(connection.execute(_IS_ACTIVE, {"high": LEADER >> 32, "low": LEADER & 0xFFFFFFFF}).scalar_one())


@dataclass(slots=True)
class Autoscaler:
    """The active autoscaler."""

    connection: Connection
    provider: Provider
    orders: Orders
    settings: Settings
    stop: threading.Event = field(default_factory=threading.Event)
    """Set from outside, so that it comes to an end."""
    _workforce: Workforce = field(init=False)
    _targets: deque[tuple[datetime, Mapping[Pool, int]]] = field(default_factory=deque)
    """The targets of the longest cool-down, and one before it."""
    _pruned_at: datetime | None = None
    _untimed: set[str] = field(default_factory=set)
    """The models for which no machine is known, so that it is logged once."""

    def __post_init__(self) -> None:
        self._workforce = Workforce(self.connection, self.provider, self.orders.drain_s, self._goes_on)

    def lead(self) -> None:
        """Takes turns until `stop` is set or the connection breaks."""
        while self._goes_on():
            self.turn()
            show_alive(self.settings.alive_file)
            self.stop.wait(self.settings.fleet_interval_s)

    def _goes_on(self) -> bool:
        show_alive(self.settings.alive_file)
        return not self.stop.is_set()

    def turn(self) -> None:
        """Looks at the workers, asks for the plans, decides, and has it done."""
        self._workforce.follow(self._now())
        wants, decisions = self._decide()
        prices = {want.pool: want.nanodollars_per_hour for want in wants}
        for decision in decisions:
            _log.info(decision.action.value, worker=decision.worker, pool=str(decision.pool), reason=decision.reason)
            if decision.action is Action.START:
                self._workforce.order(decision, prices[decision.pool])
            elif decision.action is Action.DRAIN:
                self._workforce.drain(decision)
            else:
                self._workforce.mark(decision)
        self._workforce.stop_marked(self._now())

    def _decide(self) -> tuple[list[Want], list[Decision]]:
        orders, now = self.orders, self._now()
        rules = Rules(
            orders.bounds,
            self.settings.fleet_cool_down_s,
            orders.register_within_s,
            models=frozenset(orders.models) if orders.models else None,
        )
        with self.connection.begin():
            self._prune(now)
            history = History(self._targets, *roster.past(self.connection))
            workers = [row.as_worker(now) for row in roster.open_rows(self.connection)]
            workers += roster.foreign_workers(self.connection)
            wants = self._wants(suspects(history, rules, now))
        decisions = decide(wants, workers, history, rules, now)
        remember(self._targets, targets_of(wants, rules.bounds), rules, now)
        return wants, decisions

    def _prune(self, now: datetime) -> None:
        if self._pruned_at is None or now - self._pruned_at > _PRUNE_EVERY:
            prune_log(self.connection)
            roster.prune(self.connection)
            self._pruned_at = now

    def _wants(self, suspects: Collection[Pool]) -> list[Want]:
        """Returns what the plans ask for. Starts only what the provider offers and what has not just failed."""
        served = served_models(self.connection)
        wants: list[Want] = []
        for situation in self._situations():
            newest = served.get(situation.model)
            if newest is not None and situation.fingerprint not in (None, newest.fingerprint):
                continue  # a new worker would have other weights than these jobs are pinned to
            offers = [
                replace(offer, may_start=self._may_start(situation.model, offer, suspects))
                for offer in situation.offers
            ]
            planned = plan(replace(situation, offers=tuple(offers)), self.orders.bounds)
            wants += wants_of(situation.model, offers, planned)
            if offers:
                self._untimed.discard(situation.model)
            is_short = newest is None or planned.late_tokens or planned.num_workers < self.orders.bounds.min_workers
            if is_short and not any(offer.may_start for offer in offers):
                wants += self._explored(situation.model, suspects, is_known=newest is not None)
                if not offers and not self.orders.machines:
                    self._log_untimed(situation.model)
        return wants

    def _situations(self) -> list[Situation]:
        if not self.orders.models:
            return situations(self.connection)
        found: list[Situation] = []
        for model in self.orders.models:
            try:
                found += situations(self.connection, model)
            except NotFound:
                found.append(Situation(model, None, (), (), (), None, 0.0))
        return found

    def _explored(self, model: str, suspects: Collection[Pool], *, is_known: bool) -> list[Want]:
        """Returns a first worker, or the minimum, of a model that was timed on no machine that may be started."""
        prices = [
            price
            for price in list_prices(self.connection)
            if (price.machine, price.market) in self.orders.machines and self._may_start(model, price, suspects)
        ]
        if not prices:
            return []
        cheapest = min(prices, key=lambda price: price.nanodollars_per_hour)
        why = "to learn how fast it is there" if is_known else "none has served it yet, so jobs cannot ask for it"
        pool = Pool(model, cheapest.machine, cheapest.market)
        num_workers = max(1, self.orders.bounds.min_workers)
        return [Want(pool, num_workers, cheapest.nanodollars_per_hour, f"a first worker of {model}: {why}")]

    def _log_untimed(self, model: str) -> None:
        if model not in self._untimed:
            self._untimed.add(model)
            why = f"no job of {model} was timed on any machine: name one that it fits with --machine MACHINE:MARKET"
            decision = Decision(Action.FAILED, Pool(model, "any", "any"), why)
            _log.warning(decision.action.value, pool=str(decision.pool), reason=why)
            log_decision(self.connection, decision)

    def _may_start(self, model: str, place: Offer | Price, suspects: Collection[Pool]) -> bool:
        is_offered = self.provider.offers(place.machine, place.market)
        return is_offered and Pool(model, place.machine, place.market) not in suspects

    def _now(self) -> datetime:
        with self.connection.begin():
            return roster.now(self.connection)
