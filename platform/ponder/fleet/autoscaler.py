"""The autoscaler: the service that has workers started and stopped as the plans of the models ask."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta

import structlog
from sqlalchemy import Connection, Engine, text

from ponder.alive import show_alive
from ponder.failure import brief
from ponder.fleet import roster
from ponder.fleet.decision import Action, Decision, History, Rules, decide, remember, suspects
from ponder.fleet.fleet_log import log_decision, prune_log
from ponder.fleet.problem import Bounds
from ponder.fleet.proposing.proposal import propose, situations_within, why_unplaced
from ponder.fleet.proposing.scope import LEADER, Scope, record_scope
from ponder.fleet.provider import Pool, Provider
from ponder.fleet.targets import Want, targets_of
from ponder.fleet.workforce import Workforce
from ponder.ledger.price_book import list_prices
from ponder.settings import Settings
from ponder.store.database import connect

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
            _log.info("standby", reason="another autoscaler is active; this one takes over when it ends")
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
    _recorded: Scope | None = None
    """The scope that is in Postgres."""
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
            worker = decision.worker
            if decision.action is Action.START:
                worker = self._workforce.order(decision, prices[decision.pool])
                if worker is None:
                    break  # the autoscaler is to end
            elif decision.action is Action.DRAIN:
                self._workforce.drain(decision)
            else:
                self._workforce.mark(decision)
            _log.info(decision.action.value, worker=worker, pool=str(decision.pool), reason=decision.reason)
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
            wants = self._propose(suspects(history, rules, now))
        decisions = decide(wants, workers, history, rules, now)
        remember(self._targets, targets_of(wants, rules.bounds), rules, now)
        return wants, decisions

    def _prune(self, now: datetime) -> None:
        if self._pruned_at is None or now - self._pruned_at > _PRUNE_EVERY:
            prune_log(self.connection)
            roster.prune(self.connection)
            self._pruned_at = now

    def _propose(self, suspects: Collection[Pool]) -> list[Want]:
        """Returns what the plans ask for, after what they keep to was recorded, so that others can ask for the same."""
        scope = self._scope()
        if scope != self._recorded:
            record_scope(self.connection, scope)
            self._recorded = scope
        proposals = propose(self.connection, scope, suspects, situations_within(self.connection, scope))
        for proposal in proposals:
            if proposal.situation.offers:
                self._untimed.discard(proposal.model)
            elif proposal.is_unplaced:
                self._log_untimed(proposal.model)
        return [want for proposal in proposals for want in proposal.explained()]

    def _scope(self) -> Scope:
        places = {(price.machine, price.market) for price in list_prices(self.connection)}
        offered = frozenset(place for place in places if self.provider.offers(*place))
        return Scope(self.orders.models, self.orders.bounds, frozenset(self.orders.machines), offered)

    def _log_untimed(self, model: str) -> None:
        if model not in self._untimed:
            self._untimed.add(model)
            decision = Decision(Action.FAILED, Pool(model, "any", "any"), why_unplaced(model))
            _log.warning(decision.action.value, pool=str(decision.pool), reason=decision.reason)
            log_decision(self.connection, decision)

    def _now(self) -> datetime:
        with self.connection.begin():
            return roster.now(self.connection)
