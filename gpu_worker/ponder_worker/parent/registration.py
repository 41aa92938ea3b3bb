"""The row of this incarnation in Postgres, until the heartbeat takes over."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from dataclasses import dataclass

import structlog
from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError

from ponder.errors import LeaseLost
from ponder.failure import brief
from ponder.jobs import incarnation
from ponder_worker.parent.notices.notice import Notice, Reason
from ponder_worker.protocol import Ready

_log = structlog.get_logger(__name__)

_RETRY_S = 0.5


@dataclass(frozen=True, slots=True)
class Identity:
    """The values under which an incarnation is registered."""

    id: str
    worker: str
    model: str
    machine: str
    market: str


@dataclass(frozen=True, slots=True)
class Registration:
    """Registers an incarnation while it loads, and again when it is ready for jobs."""

    database: Engine
    identity: Identity
    lease_s: float

    def register(self) -> None:
        """Raises UnknownMachine, and whatever the database raises."""
        identity = self.identity
        with self.database.begin() as connection:
            incarnation.register(
                connection,
                id=identity.id,
                worker=identity.worker,
                host=socket.gethostname(),
                pid=os.getpid(),
                model=identity.model,
                machine=identity.machine,
                market=identity.market,
                lease_s=self.lease_s,
            )
        _log.info("registered", model=identity.model, machine=identity.machine, market=identity.market)

    def become_ready(self, ready: Ready, wait: Callable[[float], Notice | None]) -> Notice | None:
        """Tries until Postgres answers: what has been loaded is not loaded again because of an outage.

        wait: sleeps for some seconds, and returns a notice that comes meanwhile. Returns why to leave, or None.
        """
        while True:
            try:
                with self.database.begin() as connection:
                    incarnation.ready(
                        connection,
                        self.identity.id,
                        fingerprint=ready.fingerprint,
                        context_length=ready.context_length,
                        has_reward_model=ready.has_reward_model,
                        room_tokens=ready.room_tokens,
                    )
                return None
            except LeaseLost as error:
                return Notice(Reason.LEASE_LOST, str(error))
            except (SQLAlchemyError, OSError) as error:
                _log.warning("ready_waits_for_postgres", error=brief(error))
            if (notice := wait(_RETRY_S)) is not None:
                return notice
