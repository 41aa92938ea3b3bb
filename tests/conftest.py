"""A real Postgres and a real Redis for the whole run. Every test gets its own database, cloned in milliseconds."""

from __future__ import annotations

import itertools
import os
import shutil
import socket
from collections import Counter
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import hypothesis
import pytest
import structlog
from sqlalchemy import Engine, text

from ponder.embedded.postgres import EmbeddedPostgres
from ponder.embedded.redis import EmbeddedRedis
from ponder.store.database import connect
from ponder.store.migrate import migrate

if TYPE_CHECKING:
    from xdist.scheduler import Scheduling

# No deadlines, because they depend on the machine, and the same examples every time.
hypothesis.settings.register_profile("ponder", deadline=None, derandomize=True)
hypothesis.settings.load_profile("ponder")

_numbers = itertools.count(1)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Scheduling | None:
    """Lets every second process of `--dist loadfile` work from the end of the collection, the others from its start.

    In that order waiting and computing files run beside each other, and no long file is left for the end.
    """
    if config.option.dist != "loadfile":
        return None
    from xdist.scheduler import LoadFileScheduling

    class FromBothEnds(LoadFileScheduling):  # type: ignore[misc]
        def _assign_work_unit(self, node: Any) -> None:
            if int(node.gateway.id.removeprefix("gw")) % 2:
                self.workqueue.move_to_end(next(reversed(self.workqueue)), last=False)
            super()._assign_work_unit(node)

    config.option.loadscopereorder = False
    return FromBothEnds(config, log)


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Sorts files that processes share: first those that may take longest, which mostly wait, and last the largest."""
    if not hasattr(config, "workerinput"):
        return
    num_tests = Counter(item.path for item in items)
    timeouts_s = Counter[Path]()
    for item in items:
        if (marker := item.get_closest_marker("timeout")) is not None:
            timeouts_s[item.path] += marker.args[0]
    items.sort(key=lambda item: (-timeouts_s[item.path], num_tests[item.path], item.path))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Fails a slow test that is skipped although everything should be there (PONDER_TEST_SKIPS=fail)."""
    report = yield
    if report.skipped and item.get_closest_marker("slow") and os.environ.get("PONDER_TEST_SKIPS") == "fail":
        report.outcome = "failed"
        report.longrepr = f"skipped, although PONDER_TEST_SKIPS=fail: {report.longrepr}"
    return report


@pytest.fixture(autouse=True)
def _logs_are_as_they_were() -> Iterator[None]:
    """Resets structlog, because `capture_logs` leaves it configured, which makes `ponder` think it is a service."""
    yield
    structlog.reset_defaults()


@pytest.fixture(scope="session")
def postgres() -> Iterator[EmbeddedPostgres]:
    with _own_folder() as folder, EmbeddedPostgres(folder) as server:
        engine = connect(server.url)
        migrate(engine)
        engine.dispose()
        yield server


@pytest.fixture(scope="session")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedRedis]:
    with EmbeddedRedis(tmp_path_factory.mktemp("redis")) as server:
        yield server


@pytest.fixture(scope="session")
def administrator(postgres: EmbeddedPostgres) -> Iterator[Engine]:
    """A connection that makes and drops databases; one for all tests, because a new one costs as much as the drop."""
    engine = connect(postgres.url_of("postgres"), pool_size=1)
    # Waiting for the disk takes longer than most tests. What a killed server wrote is safe with the kernel.
    _administer(engine, "ALTER SYSTEM SET fsync = off")
    _administer(engine, "SELECT pg_reload_conf()")
    yield engine
    engine.dispose()


@pytest.fixture
def database_url(postgres: EmbeddedPostgres, administrator: Engine) -> Iterator[str]:
    """A migrated, empty database."""
    name = f"test_{next(_numbers)}"
    _administer(administrator, f"CREATE DATABASE {name} TEMPLATE ponder")
    yield postgres.url_of(name)
    _administer(administrator, f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture
def engine(database_url: str) -> Iterator[Engine]:
    engine = connect(database_url)
    yield engine
    engine.dispose()


@pytest.fixture
def free_port() -> int:
    """A port of this machine on which nothing listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture
def home() -> Iterator[Path]:
    """The PONDER_HOME of one test, which does not exist yet."""
    with _own_folder() as folder:
        yield folder / "home"


@contextmanager
def _own_folder() -> Iterator[Path]:
    """A folder that is not pytest's, because another run of pytest closes that to the user that runs Postgres.

    It is in memory where there is room, because making the 300 files of a database costs a disk ten times as much.
    """
    memory = Path("/dev/shm")
    is_roomy = memory.is_dir() and shutil.disk_usage(memory).free > 4 << 30
    place = memory if is_roomy else None
    with TemporaryDirectory(prefix="ponder-test-", dir=place, ignore_cleanup_errors=True) as folder:
        yield Path(folder)


def _administer(engine: Engine, statement: str) -> None:
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text(statement))
