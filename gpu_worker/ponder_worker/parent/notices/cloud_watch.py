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
_PAUSES_S = (2.0, 5.0, 15.0, 30.0)
"""Between the times that the clouds are asked whether they are here: a machine may boot before its network is up."""


class Cloud(Protocol):
    """A cloud whose metadata service gives notices. `pause_s`: the time between two looks."""

    name: str
    pause_s: float

    async def is_here(self) -> bool: ...

    async def look(self) -> Notice | None: ...


class CloudWatch:
    """Watches in a thread of its own, which mostly sleeps. Whatever the service answers, the worker goes on."""

    def __init__(self, clouds: Sequence[Cloud], give: Callable[[Notice], None]) -> None:
        """Watches the one of `clouds` that is here. A single one is watched in any case."""
        self._clouds = clouds
        self._give = give

    def start(self) -> None:
        threading.Thread(target=lambda: asyncio.run(self.run()), name="notices", daemon=True).start()

    async def run(self) -> None:
        """Returns when no cloud is here, or after a notice that the machine goes."""
        cloud = self._clouds[0] if len(self._clouds) == 1 else await self._find()
        if cloud is None:
            _log.warning("no_notices", asked=[one.name for one in self._clouds])
            return
        _log.info("watching_notices", cloud=cloud.name)
        await self._watch(cloud)

    async def _find(self) -> Cloud | None:
        """Asks all clouds, and again after each of the pauses as long as none is here."""
        found = await self._ask()
        for pause_s in _PAUSES_S:
            if found is not None:
                break
            await asyncio.sleep(pause_s)
            found = await self._ask()
        return found

    async def _ask(self) -> Cloud | None:
        are_here = await asyncio.gather(*map(_is_here, self._clouds))
        return next((cloud for cloud, is_here in zip(self._clouds, are_here, strict=True) if is_here), None)

    async def _watch(self, cloud: Cloud) -> None:
        given: set[tuple[Reason, str]] = set()
        is_silent = False
        while True:
            try:
                notice = await cloud.look()
            except Exception as error:  # without this thread the worker would hear nothing any more
                if not is_silent:
                    _log_failure(cloud, error)
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
    except Exception as error:  # the other clouds may be here all the same
        _log_failure(cloud, error)
        return False


def _log_failure(cloud: Cloud, error: Exception) -> None:
    if isinstance(error, NoAnswer):
        _log.warning("notices_unanswered", cloud=cloud.name, error=str(error))
    else:
        _log.error("notices_broke", cloud=cloud.name, exc_info=error)
