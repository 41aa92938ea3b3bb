"""Delivers what is in the outbox, in a thread and an event loop of its own."""

from __future__ import annotations

import asyncio
import random
import ssl
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import structlog
from sqlalchemy import Engine

import ponder
from ponder.failure import brief
from ponder.jobs.webhooks.outbox import Message, put_off, remove, take
from ponder.jobs.webhooks.sender import Sender, Undelivered
from ponder.jobs.webhooks.signing import SecretMaker, headers
from ponder.settings import Settings

_MOST = 16
"""Attempts at a time."""
_MOST_OF_ONE = 2
"""Attempts of one tenant at a time, so that slow receivers leave room for those of others."""
_TIMEOUT_S = 15.0
_POLL_S = 0.5
_RETRY_S = 2.0

_log = structlog.get_logger(__name__)


def keep_delivering(engine: Engine, settings: Settings, stop: threading.Event) -> None:
    """Delivers until `stop` is set, whatever errors occur. Does nothing if the operator offers no webhooks.

    Any number of dispatchers may do this at a time. What one that dies had taken is due again after a minute, so a
    message may come twice; its `webhook-id` is the same then.
    """
    maker = SecretMaker.of(settings)
    if maker is None:
        return
    resolver = ThreadPoolExecutor(max_workers=_MOST, thread_name_prefix="webhook-names")
    try:
        sender = Sender(ssl.create_default_context(), resolver, settings.webhook_private, _TIMEOUT_S)
        asyncio.run(_Deliverer(engine, maker, sender, stop).run())
    finally:
        resolver.shutdown(wait=False, cancel_futures=True)


@dataclass(slots=True)
class _Deliverer:
    engine: Engine
    maker: SecretMaker
    sender: Sender
    stop: threading.Event
    random: random.Random = field(default_factory=random.SystemRandom)
    attempts: dict[asyncio.Task[None], str] = field(default_factory=dict)
    """The tenant of each attempt under way."""

    async def run(self) -> None:
        while not self.stop.is_set():
            try:
                await self._begin()
            except Exception as error:  # the outbox keeps everything until Postgres is back
                _log.warning("webhooks_interrupted", error=brief(error), retry_s=_RETRY_S)
                await asyncio.sleep(_RETRY_S)
            await self._wait()
        for attempt in self.attempts:
            attempt.cancel()
        await asyncio.gather(*self.attempts, return_exceptions=True)

    async def _begin(self) -> None:
        room = _MOST - len(self.attempts)
        if room == 0:
            return
        for message in await asyncio.to_thread(self._take, room):
            self.attempts[asyncio.create_task(self._attempt(message))] = message.tenant_id

    async def _wait(self) -> None:
        """Waits until an attempt ends, or for a moment."""
        if not self.attempts:
            await asyncio.sleep(_POLL_S)
            return
        ended, _ = await asyncio.wait(self.attempts, timeout=_POLL_S, return_when=asyncio.FIRST_COMPLETED)
        for attempt in ended:
            del self.attempts[attempt]
            error = attempt.exception()
            if error is not None:  # Postgres is away; the message is due again after its lease
                _log.warning("webhook_attempt_not_recorded", error=brief(error))

    def _take(self, room: int) -> list[Message]:
        with self.engine.begin() as connection:
            running = Counter(self.attempts.values())
            return take(connection, most=room, most_of_one=_MOST_OF_ONE, running=running)

    async def _attempt(self, message: Message) -> None:
        try:
            await self._post(message)
        except Undelivered as failure:
            await asyncio.to_thread(self._failed, message, failure)
        else:
            await asyncio.to_thread(self._delivered, message)

    async def _post(self, message: Message) -> None:
        if message.url is None:
            raise Undelivered("the tenant has no URL any more", final=True)
        if message.key_check != self.maker.check:
            raise Undelivered("PONDER_WEBHOOK_KEY is not the one that the secret was made with: make a new secret")
        body = message.body.encode()
        salts = [salt for salt in (message.salt, message.previous_salt) if salt is not None]
        secrets = [self.maker.secret(message.tenant_id, salt) for salt in salts]
        signed = headers(message.message_id, int(time.time()), body, secrets)
        agent = {"User-Agent": f"ponder-webhooks/{ponder.__version__}"}
        await self.sender.post(message.url, body, signed | agent)

    def _delivered(self, message: Message) -> None:
        with self.engine.begin() as connection:
            remove(connection, message)

    def _failed(self, message: Message, failure: Undelivered) -> None:
        with self.engine.begin() as connection:
            if failure.is_final:
                remove(connection, message, error=str(failure))
                goes_on = False
            else:
                goes_on = put_off(connection, message, str(failure), jitter=self.random.random())
        said = {"message": message.message_id, "tenant": message.tenant_id, "num_attempts": message.num_attempts}
        _log.warning("webhook_put_off" if goes_on else "webhook_given_up", reason=str(failure), **said)
