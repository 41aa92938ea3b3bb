"""The dispatcher: the service that moves batches along."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from functools import partial
from time import monotonic

import structlog
from celery import Celery
from redis import Redis
from sqlalchemy import Connection, Engine, text

from ponder.alive import show_alive
from ponder.failure import brief
from ponder.jobs.dispatching.cut import recount
from ponder.jobs.dispatching.dispatch import LaneShares, dispatch
from ponder.jobs.dispatching.dispatcher_status import keep_beating, record
from ponder.jobs.dispatching.finish import finish, follow
from ponder.jobs.dispatching.sweep import lost_messages, sweep
from ponder.jobs.estimating.observe import fold_observations
from ponder.jobs.learn import fold
from ponder.jobs.piloting.conclusions import Conclusions
from ponder.jobs.retention.prune import prune
from ponder.jobs.tally import tally
from ponder.jobs.tracing.trace_loss import trace_loss
from ponder.jobs.tracing.trace_submission import trace_submission
from ponder.jobs.validation.validations import Unvalidated, Validations
from ponder.jobs.wake import CHANNEL
from ponder.jobs.webhooks.deliverer import keep_delivering
from ponder.ledger.cost_totals import fold_costs
from ponder.queue.celery_app import Message, celery_app, check_redis, publish, queue_lengths, redis_client
from ponder.settings import Settings
from ponder.store.counter import fold_counters
from ponder.store.database import connect
from ponder.trace import Tracer

_LEADER = 0x7765696768  # "weigh"
_POLL_S = 0.2
_ROUND_S = 2.0
"""The interval of full rounds, whether woken or not."""
_REPUBLISH_AFTER_S = 15.0
_RETRY_S = 1.0
_FOLD_S = 0.3
"""The time that one step spends on folding costs."""
_PRUNE_S = 0.2
"""The time that one step spends on deleting."""

_HARMLESS = ("follow", "fold", "fold_costs", "tally", "prune")
"""Steps that may fail without holding up anybody's work."""

_log = structlog.get_logger(__name__)


def run(
    database_url: str, redis_url: str, settings: Settings, stop: threading.Event, tracer: Tracer | None = None
) -> None:
    """Validates, dispatches, finishes and sweeps until `stop` is set. Any number may run; only one is active.

    Survives restarts of Postgres and Redis. It reports errors in the log and in the table `dispatcher`, tries again,
    and never raises.
    """
    engine = connect(database_url)
    client = redis_client(redis_url)
    app = celery_app(redis_url)
    # The pulse has its own thread, because a round may take a while.
    pulse = threading.Thread(target=keep_beating, args=(engine,), kwargs={"lease_s": settings.lease_s, "stop": stop})
    pulse.start()
    # So do webhooks, because receivers are slow.
    webhooks = threading.Thread(target=keep_delivering, args=(engine, settings, stop))
    webhooks.start()
    with closing(Validations(engine, database_url, settings, tracer)) as validations:
        service = _Dispatcher(engine, app, client, settings, stop, validations, Conclusions(engine), tracer)
        while not stop.is_set():
            try:
                with _leadership(engine, settings, stop) as listener:
                    service.lead(listener)
            except Exception as error:  # whatever breaks, batches must go on once it is repaired
                _log.warning("interrupted", error=brief(error), retry_s=_RETRY_S)
                stop.wait(_RETRY_S)
    pulse.join()
    webhooks.join()
    client.close()
    app.close()
    engine.dispose()


@contextmanager
def _leadership(engine: Engine, settings: Settings, stop: threading.Event) -> Iterator[Connection]:
    """Yields a connection that holds the advisory lock and listens. The lock ends with the connection."""
    with engine.connect() as pooled:
        connection = pooled.execution_options(isolation_level="AUTOCOMMIT")
        # It must not return to the pool, because it holds the lock and listens.
        connection.detach()
        while not connection.execute(text(f"SELECT pg_try_advisory_lock({_LEADER})")).scalar_one():
            show_alive(settings.alive_file)
            if stop.wait(1.0):
                break
        else:
            _log.info("active")
        connection.execute(text(f"LISTEN {CHANNEL}"))
        yield connection


@dataclass(slots=True)
class _Dispatcher:
    engine: Engine
    app: Celery
    redis: Redis
    settings: Settings
    stop: threading.Event
    validations: Validations
    conclusions: Conclusions
    tracer: Tracer | None
    unsent: dict[int, Message] = field(default_factory=dict)
    """Messages that Redis has not accepted yet, by shard."""
    errors: dict[str, str] = field(default_factory=dict)
    """The error of each step whose last try failed."""
    is_folding_costs: bool = False
    """Whether there are more costs to fold than the last step had time for."""
    is_pruning: bool = False
    """Whether there is more to delete than the last step had time for."""
    held_up_by: set[str] = field(default_factory=set)
    """The failing steps that hold work up."""

    def lead(self, listener: Connection) -> None:
        """Does rounds until `stop` is set or the listening connection breaks."""
        woken = (self._validate, self._conclude, self._finish, self._follow, self._dispatch, self._publish, self._tally)
        folds = (self._fold, self._fold_costs)
        due = (self._sweep, self._republish, *woken, self._check_redis, *folds, self._prune, self._record)
        next_round = 0.0
        with self.engine.begin() as connection:
            recount(connection)
        while not self.stop.is_set():
            is_woken = _is_woken(listener) or self.validations.has_news
            if monotonic() >= next_round:
                next_round = monotonic() + _ROUND_S
                self._attempt(due)
                show_alive(self.settings.alive_file)
            else:
                # On a busy fleet nearly every turn is woken, and costs must be folded as fast as jobs settle.
                steps = [*(woken if is_woken else ()), *((self._fold_costs,) if self.is_folding_costs else ())]
                self._attempt(steps or ([self._prune] if self.is_pruning else ()))
            self.stop.wait(_POLL_S)

    def _attempt(self, steps: Iterable[Callable[[], None]]) -> None:
        """Does every step, even if others fail."""
        for step in steps:
            name = step.__name__.strip("_")
            self.held_up_by.discard(name)
            try:
                step()
                self.errors.pop(name, None)
            except Exception as error:
                self.errors[name] = brief(error)
                # A validation that broke off concerns one batch; its owner is told.
                if name not in _HARMLESS and not isinstance(error, Unvalidated):
                    self.held_up_by.add(name)
                _log.warning("step_failed", step=name, error=brief(error))

    def _record(self) -> None:
        """Writes the round's outcome into the row that `/readyz` and `waiting` read."""
        errors = "; ".join(f"{step}: {error}" for step, error in sorted(self.errors.items()))
        with self.engine.begin() as connection:
            record(connection, errors or None, holds_work_up=bool(self.held_up_by))

    def _validate(self) -> None:
        self.validations.turn()

    def _dispatch(self) -> None:
        shares = LaneShares(
            self.settings.interactive_share, self.settings.interactive_tokens, self.settings.interactive_factor
        )
        with self.engine.begin() as connection:
            messages = dispatch(connection, shard_tokens=self.settings.shard_tokens, shares=shares)
        self._send(messages)
        if messages:
            shard_ids = [message.shard_id for message in messages]
            self._tell(lambda connection, tracer: trace_submission(connection, tracer, shard_ids))

    def _tell(self, trace: Callable[[Connection, Tracer], None]) -> None:
        """Exports spans, if this process traces. No step fails because of them."""
        if self.tracer is None:
            return
        try:
            with self.engine.connect() as connection:
                trace(connection, self.tracer)
        except Exception as error:
            _log.warning("trace_not_told", error=brief(error))

    def _send(self, messages: Iterable[Message]) -> None:
        self.unsent |= {message.shard_id: message for message in messages}

    def _publish(self) -> None:
        """Publishes everything unsent. After an error all of it is sent again, because repeats are harmless."""
        if self.unsent:
            publish(self.app, self.unsent.values())
            self.unsent.clear()

    def _check_redis(self) -> None:
        """Checks Redis even if there is nothing to publish, because workers wait for earlier messages."""
        check_redis(self.redis)

    def _conclude(self) -> None:
        self.conclusions.turn(monotonic())

    def _finish(self) -> None:
        with self.engine.begin() as connection:
            finish(connection)

    def _follow(self) -> None:
        with self.engine.begin() as connection:
            follow(connection)

    def _sweep(self) -> None:
        swept = sweep(self.engine, shard_tokens=self.settings.shard_tokens)
        if swept:
            ids = [one.incarnation_id for one in swept]
            self._tell(lambda connection, tracer: trace_loss(connection, tracer, ids))

    def _fold(self) -> None:
        for folded in (fold, fold_observations, fold_counters):
            with self.engine.begin() as connection:
                folded(connection)

    def _fold_costs(self) -> None:
        self.is_folding_costs = False
        end = monotonic() + _FOLD_S
        is_left = True
        while is_left and monotonic() < end and not self.stop.is_set():
            with self.engine.begin() as connection:
                is_left = fold_costs(connection)
        self.is_folding_costs = is_left

    def _tally(self) -> None:
        is_full = True
        while is_full and not self.stop.is_set():
            with self.engine.begin() as connection:
                is_full = tally(connection)

    def _prune(self) -> None:
        self.is_pruning = prune(self.engine, for_s=_PRUNE_S)

    def _republish(self) -> None:
        with self.engine.begin() as connection:
            messages = lost_messages(
                connection, partial(queue_lengths, self.redis), republish_after_s=_REPUBLISH_AFTER_S
            )
        if messages:
            _log.info("published_again", num_messages=len(messages))
            self._send(messages)


def _is_woken(listener: Connection) -> bool:
    """Returns whether `wake` was called. pg8000 delivers notifications with the next answer, so this asks one."""
    listener.execute(text("SELECT 1"))
    # Not `driver_connection`: a detached connection has none.
    notifications = listener.connection.dbapi_connection.notifications  # type: ignore[union-attr]
    is_woken = bool(notifications)
    notifications.clear()
    return is_woken
