"""The bare Celery worker: a message comes, a shard is taken, or the message is given back."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence

import structlog
from celery import Celery, Task
from celery.worker import WorkController, state
from celery.worker.request import Request
from kombu.transport.virtual import QoS

from ponder.errors import Unreachable
from ponder.failure import brief
from ponder.queue.app import TASK, Message, publish

_log = structlog.get_logger(__name__)

_RETRY_S = 2.0


class _Request(Request):  # type: ignore[misc]
    """A message that Redis cannot be told about, because it went away meanwhile, counts as taken all the same.

    Celery logs and forgets it, but kombu goes on counting it as the one message that may wait here, asks Redis for no
    other and so never finds out that the connection is broken: the worker would be deaf from then on.
    """

    def acknowledge(self) -> None:
        try:
            super().acknowledge()
        finally:
            message = self._message
            if not message.acknowledged:
                QoS.ack(message.channel.qos, message.delivery_tag)  # type: ignore[no-untyped-call]


class CeleryConsumer:
    """The bare Celery worker in a thread of its own. It outlives whatever Redis answers: full, loading, a replica.

    `WorkController` and not `app.Worker`: the latter installs signal handlers, and a warm shutdown of its would wait
    for a task that waits for room. Signals are `preemption`'s.
    """

    def __init__(self, app: Celery, queues: Sequence[str], name: str, take: Callable[[int], bool]) -> None:
        app.set_default()

        @app.task(name=TASK, bind=True, shared=False, Request=_Request)  # type: ignore[untyped-decorator]
        def intake(task: Task, shard_id: int) -> None:
            if not take(int(shard_id)):
                _give_back(app, Message(int(shard_id), task.request.delivery_info["routing_key"]))

        self._app = app
        self._queues = list(queues)
        self._name = name
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="celery", daemon=True)

    def start(self) -> None:
        self._thread.start()

    @property
    def is_alive(self) -> bool:
        return self._thread.is_alive()

    def stop(self) -> None:
        """Asks it to give back what it has prefetched and to end; returns at once."""
        self._stopping.set()
        state.should_stop = 0

    def wait(self, timeout_s: float) -> None:
        """After `stop`, for as long at most: a message that was on its way here meanwhile is given back too."""
        self._thread.join(timeout_s)

    def _run(self) -> None:
        """Celery goes on by itself where a connection breaks, and gives up where Redis answers but refuses."""
        while not self._stopping.is_set():
            controller = self._controller()
            try:
                controller.blueprint.start(controller)
            except SystemExit:  # Celery's way to say that it was asked to stop
                controller.stop()
            except Exception as error:
                _log.warning("consumer_waits_for_redis", error=brief(error), retry_s=_RETRY_S)
                controller.stop()
                self._stopping.wait(_RETRY_S)

    def _controller(self) -> WorkController:
        return WorkController(
            app=self._app,
            hostname=self._name,
            pool="threads",
            concurrency=1,
            prefetch_multiplier=1,
            queues=self._queues,
            without_gossip=True,
            without_mingle=True,
            without_heartbeat=True,
            task_events=False,
        )


def _give_back(app: Celery, message: Message) -> None:
    """A message that gets lost here is published again by the sweep."""
    try:
        publish(app, [message])
    except Unreachable as error:
        _log.warning("message_not_given_back", shard=message.shard_id, error=brief(error))
