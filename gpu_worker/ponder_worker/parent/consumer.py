"""The worker's side of the queue: it consumes messages, gives back what it cannot use, and watches Redis."""

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
from ponder.queue.celery_app import TASK, Message, publish, trouble

_log = structlog.get_logger(__name__)

_RETRY_S = 2.0
_LOOK_TIMEOUT_S = 2


class _Request(Request):  # type: ignore[misc]
    """Counts a message as taken even if Redis cannot be told, because it went away meanwhile.

    Celery logs and forgets such a message. But kombu still counts it as the one message that may wait here, so it asks
    Redis for no other and never finds out that the connection is broken: the worker would be deaf from then on.
    """

    def acknowledge(self) -> None:
        try:
            super().acknowledge()
        finally:
            message = self._message
            if not message.acknowledged:
                QoS.ack(message.channel.qos, message.delivery_tag)  # type: ignore[no-untyped-call]


class CeleryConsumer:
    """A bare Celery worker in a thread of its own. It outlives whatever Redis answers: full, loading, a replica.

    It is a `WorkController`, because `app.Worker` installs signal handlers, which are `Notices`' here, and because
    its warm shutdown would wait for a task that waits for room.
    """

    def __init__(self, app: Celery, queues: Sequence[str], name: str, take: Callable[[int], bool]) -> None:
        """Calls `take` with a shard, and gives its message back if that returns False."""
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
        """Asks the consumer to give back what it has prefetched and to end; returns at once."""
        self._stopping.set()
        state.should_stop = 0

    def wait(self, timeout_s: float) -> None:
        """Waits for the end after `stop`, so that a message that was on its way here is given back too."""
        self._thread.join(timeout_s)

    def _run(self) -> None:
        """Starts Celery again where Redis answers but refuses; a broken connection it mends by itself."""
        while not self._stopping.is_set():
            controller = self._controller()
            try:
                controller.blueprint.start(controller)
            except SystemExit:  # how Celery says that it was asked to stop
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
    """Publishes the message again; if that fails, the sweep does it later."""
    try:
        publish(app, [message])
    except Unreachable as error:
        _log.warning("message_not_given_back", shard=message.shard_id, error=brief(error))


class RedisWatch:
    """Logs when Redis stops and starts to take messages.

    That is no reason to end: model and jobs are here, and messages come again once Redis is back.
    """

    def __init__(self, redis_url: str) -> None:
        self._redis_url = redis_url
        self._trouble: str | None = None

    @property
    def is_up(self) -> bool:
        return self._trouble is None

    def look(self) -> None:
        before, self._trouble = self._trouble, trouble(self._redis_url, timeout_s=_LOOK_TIMEOUT_S)
        if self._trouble is not None and before is None:
            _log.warning("no_messages", redis=self._trouble)
        elif self._trouble is None and before is not None:
            _log.info("messages_again")
