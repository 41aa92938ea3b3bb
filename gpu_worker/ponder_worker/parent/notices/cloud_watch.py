"""Asking the cloud that a worker runs on whether it has to leave."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Sequence
from typing import Protocol

import structlog

from ponder_worker.parent.notices.metadata_service import NoAnswer
from ponder_worker.parent.notices.notice import Notice, Reason

_log = structlog.get_logger(__name__)

_RETRY_S = 5.0


class Cloud(Protocol):
    """A cloud whose metadata service gives notices. `pause_s`: the time between two looks."""

    name: str
    pause_s: float

    async def is_here(self) -> bool: ...

    async def look(self) -> Notice | None: ...


class CloudWatch:
    """Watches in a thread of its own, which mostly sleeps. Whatever the service answers, the worker goes on."""

    def __init__(self, clouds: Sequence[Cloud], give: Callable[[Notice], None]) -> None:
        """Asks each of `clouds` once, and watches the one that is here. A single one is watched in any case."""
        self._clouds = clouds
        self._give = give

    def start(self) -> None:
        threading.Thread(target=lambda: asyncio.run(self.run()), name="notices", daemon=True).start()

    async def run(self) -> None:
        """Returns when no cloud is here, or after a notice that the machine goes."""
        cloud = self._clouds[0] if len(self._clouds) == 1 else await self._find()
        if cloud is None:
            _log.info("no_notices", asked=[one.name for one in self._clouds])
            return
        _log.info("watching_notices", cloud=cloud.name)
        await self._watch(cloud)

    async def _find(self) -> Cloud | None:
        are_here = await asyncio.gather(*map(_is_here, self._clouds))
        return next((cloud for cloud, is_here in zip(self._clouds, are_here, strict=True) if is_here), None)

    async def _watch(self, cloud: Cloud) -> None:
        given: set[tuple[Reason, str]] = set()
        is_silent = False
        while True:
            try:
                notice = await cloud.look()
            except NoAnswer as error:
                if not is_silent:
                    _log.warning("notices_unanswered", cloud=cloud.name, error=str(error))
                is_silent = True
                await asyncio.sleep(_RETRY_S)
                continue
            if is_silent:
                _log.info("notices_answered_again", cloud=cloud.name)
            is_silent = False
            if notice is not None and (notice.reason, notice.kind) not in given:
                given.add((notice.reason, notice.kind))
                self._give(notice)
                if notice.reason is Reason.PREEMPTED:
                    return
            await asyncio.sleep(cloud.pause_s)


async def _is_here(cloud: Cloud) -> bool:
    try:
        return await cloud.is_here()
    except NoAnswer:
        return False
