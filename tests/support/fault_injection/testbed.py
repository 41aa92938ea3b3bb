"""The system under test: Postgres, Redis, the API, a dispatcher and some workers, all of them real processes."""

from __future__ import annotations

import logging
import socket
import threading
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from random import Random
from types import TracebackType
from typing import Any, Self

from fault_injection.network import Network
from fault_injection.service import Service, make_fleet
from fault_injection.trail import lay_trail
from process_tree import children, processes_of
from sqlalchemy import Engine, Row, text
from waiting import until

from ponder.client import Client
from ponder.embedded.postgres import EmbeddedPostgres
from ponder.embedded.redis import EmbeddedRedis
from ponder.errors import SetupError
from ponder.store.database import connect
from ponder.store.first_key import ensure_operator_key
from ponder.store.migrate import migrate

KEYS = {"one": "pk-chaos-one", "other": "pk-chaos-other"}
"""The keys of two tenants."""
_FREE_WITHIN_S = 240.0


class Testbed:
    """The services and stores of a run. The thread that entered keeps calling `mend`, which restarts what has died.

    Services reach Postgres and Redis over links of their own; we observe both past them.
    """

    __test__ = False

    def __init__(self, folder: Path, *, num_workers: int = 3) -> None:
        self.folder = folder
        self.postgres = EmbeddedPostgres(folder)
        self.redis = EmbeddedRedis(folder)
        self.engine: Engine = connect(self.postgres.url)
        """The connection before and after the faults."""
        self.observer: Engine = connect(self.postgres.url, pool_size=10, timeout_s=2)
        """The connection during the faults. It does not wait for a frozen Postgres."""
        self.workers: list[Service] = []
        self.services: dict[str, Service] = {}
        """All services by name, workers included."""
        self.held_down: set[str] = set()
        """The names of the stores that a fault keeps down."""
        self.hits: defaultdict[int, list[str]] = defaultdict(list)
        """The faults that should kill a worker or cost its lease, by its process id."""
        self._num_workers = num_workers
        self._network = Network()
        self._locks: defaultdict[str, threading.Lock] = defaultdict(threading.Lock)
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            stack.enter_context(_quiet_pool())
            stack.callback(self.engine.dispose)
            stack.callback(self.observer.dispose)
            stack.callback(self.postgres.stop)
            stack.callback(self.redis.stop)
            self._start_stores()
            stack.enter_context(self._network)
            self._make_services()
            stack.callback(self.stop_services)
            until(self._is_ready, 120)
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def mend(self) -> None:
        """Restarts what has died. If that fails, the next call tries again."""
        for name, store in (("postgres", self.postgres), ("redis", self.redis)):
            if name not in self.held_down and store.process is not None and store.process.poll() is not None:
                with suppress(SetupError):
                    store.start()
        for service in self.services.values():
            service.mend()

    def stop_services(self) -> None:
        """Tells all services to go at once, as an operator would."""
        threads = [threading.Thread(target=service.stop) for service in self.services.values()]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    def client(self, tenant: str) -> Client:
        """Returns a client of the API with the patience to wait until it is mended."""
        return Client.of(f"http://127.0.0.1:{self._port}", KEYS[tenant], patience_s=120, timeout_s=30)

    @property
    def ready_url(self) -> str:
        return f"http://127.0.0.1:{self._port}/readyz"

    @contextmanager
    def claimed(self, subject: str, rng: Random) -> Iterator[Service | None]:
        """Keeps other faults from the subject meanwhile: a service or a store by name, or "worker" for any ready one.

        Yields the service, or None if the subject is a store.
        """
        name = self._claim(subject, rng)
        try:
            yield self.services.get(name)
        finally:
            self._locks[name].release()

    def rows(self, statement: str, **parameters: Any) -> list[Row[Any]]:
        """Raises what SQLAlchemy raises while Postgres is away."""
        with self.observer.connect() as connection:
            return list(connection.execute(text(statement), parameters))

    def scalar(self, statement: str, **parameters: Any) -> Any:
        return self.rows(statement, **parameters)[0][0]

    def num_pending(self) -> int:
        return int(self.scalar("SELECT count(*) FROM jobs WHERE state = 'pending'"))

    def strays(self) -> list[int]:
        """Processes of this testbed that belong to none of its services and stores."""
        found = processes_of(self.folder)
        ours = [store.process.pid for store in (self.postgres, self.redis) if store.process is not None]
        ours += [service.pid for service in self.services.values()]
        known = {descendant for pid in ours for descendant in (pid, *children(pid))}
        return [pid for pid in found if pid not in known]

    def _claim(self, subject: str, rng: Random) -> str:
        give_up_at = time.monotonic() + _FREE_WITHIN_S
        while True:
            for name in self._candidates(subject, rng):
                if self._locks[name].acquire(blocking=False):
                    return name
            assert time.monotonic() < give_up_at, f"{subject} was not free within {_FREE_WITHIN_S:g} s"
            time.sleep(0.1)

    def _candidates(self, subject: str, rng: Random) -> Iterable[str]:
        if subject != "worker":
            return (subject,)
        ready: set[int] = set()
        with suppress(Exception):
            ready = {row.pid for row in self.rows("SELECT pid FROM incarnations WHERE state = 'ready'")}
        names = [worker.name for worker in self.workers if worker.pid in ready]
        return rng.sample(names, len(names))

    def _start_stores(self) -> None:
        self.postgres.start()
        self.redis.start()
        migrate(self.engine)
        with self.engine.begin() as connection:
            for tenant, key in KEYS.items():
                ensure_operator_key(connection, key, tenant=tenant, name=tenant)
            lay_trail(connection)

    def _make_services(self) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self._port = int(probe.getsockname()[1])
        fleet = make_fleet(self.folder, self._network, port=self._port, num_workers=self._num_workers)
        self.services = {service.name: service for service in fleet}
        self.workers = [service for service in fleet if service.name.startswith("worker")]

    def _is_ready(self) -> bool:
        self.mend()
        return bool(
            self.scalar("SELECT count(*) FROM incarnations WHERE state = 'ready'") == self._num_workers
            and self.scalar("SELECT count(*) FROM dispatcher")
        )


@contextmanager
def _quiet_pool() -> Iterator[None]:
    """Silences SQLAlchemy, which logs every broken connection at length; here they break all the time."""
    logger = logging.getLogger("sqlalchemy.pool")
    before = logger.level
    logger.setLevel(logging.CRITICAL)
    yield
    logger.setLevel(before)
