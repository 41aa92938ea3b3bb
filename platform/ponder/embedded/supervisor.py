"""The supervisor behind `ponder up`: starts the stack, keeps it running, and ends it when it ends itself.

Started as `python -m ponder.embedded.supervisor PLAN`, with the plan as JSON.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections.abc import Set
from contextlib import ExitStack, suppress
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType

import httpx2
import structlog

from ponder import log
from ponder.embedded.home import Home
from ponder.embedded.plan import Plan
from ponder.embedded.postgres import EmbeddedPostgres
from ponder.embedded.redis import EmbeddedRedis
from ponder.embedded.service import Service
from ponder.errors import PonderError, SetupError
from ponder.settings import Settings
from ponder.store.database import connect
from ponder.store.first_key import ensure_operator_key, new_key
from ponder.store.migrate import migrate

_START_TIMEOUT_S = 120.0
_LOADING_TIMEOUT_S = 1800.0
"""The limit for a living worker, because loading a large model from a slow disk takes long."""
_MOST_DEATHS = 2
_ENDINGS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)

_log = structlog.get_logger("ponder.embedded.supervisor")


class Stopped(BaseException):
    """The supervisor got SIGTERM or Ctrl-C. This is not an error, and nothing may swallow it."""


def main() -> int:
    plan = Plan.parse(sys.argv[1])
    for name in _ENDINGS:
        signal.signal(name, _stop)
    try:
        log.configure("supervisor", Settings().log_level)
        lock = Home(Path(plan.home)).lock()
        plan.check()
        Supervisor(plan).run()
        os.close(lock)
    except Stopped:
        _log.info("stopped")
    except (PonderError, OSError) as error:
        notify({"error": str(error)})
        _log.critical("ended", error=str(error))
        return 1
    return 0


def _stop(number: int, frame: FrameType | None) -> None:
    for name in _ENDINGS:
        signal.signal(name, signal.SIG_IGN)  # once is enough, as stopping takes seconds
    raise Stopped


class Supervisor:
    """The supervisor. It starts everything from the main thread, so that the kernel ends it all with this process."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.home = Home(Path(plan.home))
        self.started_at = datetime.now(UTC)
        self.postgres = EmbeddedPostgres(self.home.path)
        self.redis = EmbeddedRedis(self.home.path)
        self.services: list[Service] = []
        self.key = ""

    def run(self) -> None:
        """Runs the stack and never returns. No exception leaves anything running."""
        with ExitStack() as stack:
            stack.callback(self._forget)
            self._start(stack)
            notify({"ready": self.plan.url})
            _hang_up()
            while True:
                time.sleep(0.5)
                self._mend()

    def _start(self, stack: ExitStack) -> None:
        notify({"phase": "Postgres"})
        stack.callback(self.postgres.stop)
        _patiently(self.postgres)
        notify({"phase": "Redis"})
        stack.callback(self.redis.stop)
        _patiently(self.redis)
        notify({"phase": "the schema"})
        self._prepare_database()
        self.services = self.plan.services(self.postgres.url, self.redis.url)
        stack.callback(self._stop_services)
        for service in self.services:
            service.start()
        self._write_record(is_ready=False)
        notify({"phase": "the API"})
        self._wait_for(f"{self.plan.url}/readyz")
        awaited = {model.name for model in self.plan.models if model.num_workers}
        if awaited:
            notify({"phase": "the worker"})
            # An autoscaler starts a worker of an unknown model, so that jobs can ask for it, and others when they do.
            self._wait_for_models(awaited, least_workers=1 if self.plan.autoscaling is None else 0)
        self._write_record()

    def _prepare_database(self) -> None:
        self.key = self.home.key() or new_key()
        engine = connect(self.postgres.url)
        migrate(engine)
        with engine.begin() as connection:
            ensure_operator_key(connection, self.key, tenant="local", name="ponder up")
        engine.dispose()
        self.home.write_key(self.key)

    def _wait_for(self, url: str) -> httpx2.Response:
        """Returns the first successful answer."""
        give_up_at = time.monotonic() + _START_TIMEOUT_S
        said = "no answer"
        while True:
            with suppress(httpx2.TransportError):
                response = httpx2.get(url, headers={"Authorization": f"Bearer {self.key}"}, timeout=5, trust_env=False)
                if response.is_success:
                    return response
                said = response.text
            self._mend()
            self._give_up_on_the_dying(give_up_at, f"{url} did not become ready in {_START_TIMEOUT_S:.0f} s ({said})")
            time.sleep(0.1)

    def _wait_for_models(self, awaited: Set[str], *, least_workers: int) -> None:
        """Waits until each of these models is known and has so many workers."""
        give_up_at = time.monotonic() + _LOADING_TIMEOUT_S
        while True:
            url = f"{self.plan.url}/v1/models"
            models = self._wait_for(url).json()["data"]
            if awaited <= {model["id"] for model in models if model["ponder"]["live_workers"] >= least_workers}:
                return
            self._mend()
            self._give_up_on_the_dying(give_up_at, "the worker did not become ready in time")
            time.sleep(0.2)

    def _give_up_on_the_dying(self, give_up_at: float, failure: str) -> None:
        for service in self.services:
            if service.num_restarts >= _MOST_DEATHS:
                raise SetupError(f"the {service.name} did not start: {service.last_words()}\n(its log: {service.log})")
        if time.monotonic() > give_up_at:
            raise SetupError(f"{failure}; see the logs in {self.home.path}")

    def _mend(self) -> None:
        """Restarts processes that have died."""
        ended: dict[str, int] = {}
        for name, store in (("postgres", self.postgres), ("redis", self.redis)):
            if store.process is not None and store.process.poll() is not None:
                ended[name] = store.process.returncode
                with suppress(SetupError):
                    store.start()
        ended |= {service.name: code for service in self.services if (code := service.mend()) is not None}
        for name, code in ended.items():
            _log.warning("started_again", process=name, exit_code=code)
        if ended:
            with suppress(OSError):  # a full disk must not stop what still runs
                self._write_record()

    def _write_record(self, *, is_ready: bool = True) -> None:
        stores = [("postgres", self.postgres.process), ("redis", self.redis.process)]
        self.home.write_record(
            {
                "pid": os.getpid(),
                "is_ready": is_ready,
                "url": self.plan.url,
                "started_at": self.started_at.isoformat(),
                "plan": self.plan.document(),
                "services": [{"name": name, "pid": p.pid, "restarts": 0} for name, p in stores if p is not None]
                + [{"name": s.name, "pid": s.pid, "restarts": s.num_restarts} for s in self.services],
            }
        )

    def _stop_services(self) -> None:
        """Stops all services at once, so that the worker can hand its work back while the others still run."""
        for service in self.services:
            service.ask_to_stop()
        for service in reversed(self.services):
            service.stop()

    def _forget(self) -> None:
        with suppress(OSError):
            self.home.record_file.unlink()


def _patiently(store: EmbeddedPostgres | EmbeddedRedis) -> None:
    """Starts a store, and retries while that of a killed supervisor is still finishing its files."""
    for pause_s in (0.5, 2.0, 5.0, None):
        try:
            store.start()
            return
        except SetupError:
            store.stop()
            if pause_s is None:
                raise
            time.sleep(pause_s)


def notify(message: dict[str, str]) -> None:
    """Sends a line of JSON (`phase`, `ready` or `error`) to the starting process, if it still listens."""
    with suppress(BrokenPipeError, ValueError):
        print(json.dumps(message), flush=True)


def _hang_up() -> None:
    """Closes the channel, so that the starting process may end."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


if __name__ == "__main__":
    sys.exit(main())
