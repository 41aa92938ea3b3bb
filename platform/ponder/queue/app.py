"""The Celery app, and the one message there is: {"shard_id": id}."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from celery import Celery

TASK = "ponder.intake"


@dataclass(frozen=True, slots=True)
class Message:
    shard_id: int
    queue: str


def queue_name(model: str, fingerprint: str, lane: str) -> str:
    """One queue for the weights and lane that a shard needs; any characters may be in the model's name."""
    raise NotImplementedError


def celery_app(redis_url: str) -> Celery:
    """Early ack, JSON only, no result backend, one message at a time; queues in the order they are consumed from."""
    raise NotImplementedError


def publish(app: Celery, messages: Iterable[Message]) -> None:
    """Raises Unreachable when Redis does not take them; what it did not take, the dispatcher publishes again later."""
    raise NotImplementedError


def queue_lengths(redis_url: str, queues: Iterable[str]) -> dict[str, int]:
    """How many messages wait in each. Raises Unreachable."""
    raise NotImplementedError
