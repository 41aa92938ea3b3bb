"""The workers that a provider has for the autoscaler, kept in step with their rows."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

from sqlalchemy import Connection

from ponder.fleet import roster
from ponder.fleet.decision import Action, Decision
from ponder.fleet.fleet_log import log_decision
from ponder.fleet.provider import Order, Pool, Provider, ProviderFailed
from ponder.fleet.roster import Row
from ponder.jobs.drain import drain

_APPEARS_WITHIN = timedelta(seconds=30)
"""A worker that its provider has not had by then has failed. One without an order may wait so long for one."""
_STOPS_WITHIN_S = 60.0
"""A provider that still has a worker by then is asked again to stop it."""
_GRACE_S = 10.0
"""The time that a drained worker has for leaving, after the time for its work."""
_RETRY_S, _LONGEST_RETRY_S = 5.0, 600.0

_Answers = Mapping[Pool, Collection[str] | None]
"""The names of the workers that the provider has. A pool about which it failed to answer is not there."""


@dataclass(slots=True)
class Workforce:
    """Orders, follows and stops workers. `connection` is in no transaction while the provider is asked for something.

    An order is a row before the provider hears of it, and stays one until the provider has its worker no more.
    """

    connection: Connection
    provider: Provider
    drain_s: float
    goes_on: Callable[[], bool]
    """Called before each request to the provider, which may be slow. Where it returns False, the rest is left."""
    _silent: set[Pool] = field(default_factory=set)
    """The pools about which the provider failed to answer, so that it is logged once."""
    _strays: dict[str, datetime] = field(default_factory=dict)
    """The times since when the provider has had workers without an order."""

    def follow(self, now: datetime) -> None:
        """Writes down what has become of the workers, and has the provider do what it has not done yet."""
        with self.connection.begin():
            rows = roster.open_rows(self.connection)
            pools = {row.pool for row in rows} | roster.recent_pools(self.connection)
        answers = self._ask(sorted(pools))
        with self.connection.begin():
            rows = roster.open_rows(self.connection)
            if self.provider.names_workers:
                self._assign(rows, answers)
            for row in rows:
                if not row.is_untold:
                    self._look_at(row, answers, now)
        self.stop_marked(now)
        with self.connection.begin():
            rows = roster.open_rows(self.connection)
        for row in rows:
            if row.is_untold and self.goes_on():
                self._start(row.order(roster.num_of_pool(rows, row.pool)))
        self._stop_strays(answers, now)

    def _ask(self, pools: Iterable[Pool]) -> _Answers:
        answers: dict[Pool, Collection[str] | None] = {}
        for pool in pools:
            if not self.goes_on():
                break
            try:
                answers[pool] = self.provider.workers(pool)
                self._silent.discard(pool)
            except ProviderFailed as error:
                if pool not in self._silent:
                    self._note(Decision(Action.FAILED, pool, f"its workers are unknown: {error}"))
                self._silent.add(pool)
        return answers

    def _assign(self, rows: Collection[Row], answers: _Answers) -> None:
        """Gives workers whose names the provider chose to the orders that wait for one."""
        known = {row.worker for row in rows}
        for pool, names in answers.items():
            free = sorted(set(names or ()) - known)
            waiting = [row for row in rows if row.pool == pool and row.worker is None and row.stop_at is None]
            for row, name in zip(waiting, free, strict=False):
                roster.seen(self.connection, row.id, name)

    def _look_at(self, row: Row, answers: _Answers, now: datetime) -> None:
        names = answers.get(row.pool)
        if row.seen_at is None and row.worker is not None and names is not None and row.worker in names:
            roster.seen(self.connection, row.id, row.worker)
        if row.ready_at is None and row.state == "ready":
            roster.became_ready(self.connection, row.id)
            waited_s = (now - row.ordered_at).total_seconds()
            ready = Decision(Action.READY, row.pool, f"{waited_s:.0f} s after it was ordered", row.id)
            log_decision(self.connection, ready)
        if row.pool in answers and _is_gone(row, names, now):
            was_asked = row.stop_at is not None or row.leave_by is not None
            has_failed = row.has_failed or (row.ready_at is None and row.state != "ready" and not was_asked)
            roster.ended(self.connection, row.id, has_failed=has_failed)
            action = Action.FAILED if has_failed else Action.ENDED
            log_decision(self.connection, Decision(action, row.pool, _why_gone(row), row.id))
        elif row.left_at is not None and row.stop_at is None:
            # What it ran on may still be there, and cost money.
            has_failed = row.ready_at is None and row.leave_by is None
            roster.to_be_stopped(self.connection, row.id, has_failed=has_failed)

    def _stop_strays(self, answers: _Answers, now: datetime) -> None:
        """Has the provider stop workers that have no order, such as one that appeared after it was given up."""
        with self.connection.begin():
            known = {row.worker for row in roster.open_rows(self.connection)}
            found = {
                name: Order(name, pool, 0, name) for pool, names in answers.items() for name in set(names or ()) - known
            }
            if not self.provider.names_workers:  # what nobody ever ordered is somebody else's
                found = roster.former_orders(self.connection, found)
        self._strays = {name: self._strays.get(name, now) for name in found}
        for name, order in list(found.items()):
            if now - self._strays[name] >= _APPEARS_WITHIN and self.goes_on():
                self._strays[name] = now  # the next try, if it is still there
                del found[name]
                self._stop_stray(order, sum(other.pool == order.pool for other in found.values()))

    def _stop_stray(self, order: Order, num_others: int) -> None:
        with self.connection.begin():
            num_workers = roster.num_of_pool(roster.open_rows(self.connection), order.pool) + num_others
        decision = Decision(Action.STOP, order.pool, "the provider has it, and it has no order", order.worker)
        try:
            self.provider.stop(replace(order, num_workers=num_workers))
        except ProviderFailed as error:
            why = f"it has no order and could not be stopped: {error}"
            decision = Decision(Action.FAILED, order.pool, why, order.worker)
        self._note(decision)

    def order(self, decision: Decision, nanodollars_per_hour: int) -> str | None:
        """Has a worker started, after those that are to be stopped: it may need their place. Returns its order's id.

        Returns None if there was no time left for it.
        """
        self.stop_marked(self._now())
        if not self.goes_on():
            return None
        id = f"fleet-{secrets.token_hex(6)}"
        worker = None if self.provider.names_workers else id
        with self.connection.begin():
            num_workers = roster.num_of_pool(roster.open_rows(self.connection), decision.pool) + 1
            order = Order(id, decision.pool, num_workers, worker)
            roster.add(self.connection, order, nanodollars_per_hour)
            log_decision(self.connection, Decision(Action.START, decision.pool, decision.reason, id))
        self._start(order)
        return id

    def _start(self, order: Order) -> None:
        try:
            handle = self.provider.start(order)
        except ProviderFailed as error:
            with self.connection.begin():
                log_decision(self.connection, Decision(Action.FAILED, order.pool, str(error), order.id))
                if error.is_undone:
                    roster.ended(self.connection, order.id, has_failed=True)
                else:  # perhaps something was started
                    roster.to_be_stopped(self.connection, order.id, has_failed=True)
            return
        with self.connection.begin():
            roster.told(self.connection, order.id, handle)

    def drain(self, decision: Decision) -> None:
        """Asks a worker to leave, unless it has just died: then there is nothing to ask for."""
        with self.connection.begin():
            row = next((row for row in roster.open_rows(self.connection) if row.id == decision.worker), None)
            if row is None or row.incarnation_id is None:
                return
            if drain(self.connection, row.incarnation_id, within_s=self.drain_s):
                roster.draining(self.connection, row.id, self.drain_s + _GRACE_S)
                log_decision(self.connection, decision)

    def mark(self, decision: Decision) -> None:
        """Marks a worker that `stop_marked` has to stop."""
        assert decision.worker is not None, "only a worker of ours is stopped"
        with self.connection.begin():
            roster.to_be_stopped(self.connection, decision.worker, has_failed=decision.action is Action.GIVE_UP)
            log_decision(self.connection, decision)

    def stop_marked(self, now: datetime) -> None:
        """Has the provider stop what is marked. What it fails to stop is tried again after ever longer pauses."""
        with self.connection.begin():
            rows = left = roster.open_rows(self.connection)
        for row in rows:
            if row.stop_at is None or (row.retry_at is not None and now < row.retry_at):
                continue
            if not self.goes_on():
                break
            others = [other for other in left if other.id != row.id]
            try:
                self.provider.stop(row.order(roster.num_of_pool(others, row.pool)))
            except ProviderFailed as error:
                again_in_s = min(_RETRY_S * 2 ** min(row.num_tries, 10), _LONGEST_RETRY_S)
                with self.connection.begin():
                    roster.not_stopped(self.connection, row.id, again_in_s=again_in_s)
                    why = f"it could not be stopped, and will be tried again in {again_in_s:.0f} s: {error}"
                    log_decision(self.connection, Decision(Action.FAILED, row.pool, why, row.id))
            else:
                with self.connection.begin():
                    roster.stopped(self.connection, row.id, again_in_s=_STOPS_WITHIN_S)
                left = others

    def _now(self) -> datetime:
        with self.connection.begin():
            return roster.now(self.connection)

    def _note(self, decision: Decision) -> None:
        with self.connection.begin():
            log_decision(self.connection, decision)


def _is_gone(row: Row, names: Collection[str] | None, now: datetime) -> bool:
    """Returns whether a worker is over, by the names that its provider has, or None where that cannot tell."""
    if names is None or row.worker is None:
        return row.stopped_at is not None
    is_known = row.seen_at is not None or row.state is not None
    is_due = is_known or row.stopped_at is not None or now - row.ordered_at > _APPEARS_WITHIN
    return is_due and row.worker not in names


def _why_gone(row: Row) -> str:
    if row.leave_by is not None and row.left_at is not None:
        return "it was drained"
    if row.stop_at is not None and (row.left_at is None or row.stop_at < row.left_at):
        return "it was stopped"
    if row.left_at is not None:
        return f"it left: {row.end_reason}"
    if row.state is None:
        return "it ended before it had registered"
    return "it died or was taken away: its provider has it no more"
