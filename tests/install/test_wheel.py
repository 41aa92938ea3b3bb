"""The wheel in an environment that has nothing else: first a server, then a worker."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from package_index import ISOLATED, skip_without_index
from sqlalchemy import Engine, text
from waiting import until

from ponder.embedded.child_process import spawn, stop
from ponder.embedded.redis import EmbeddedRedis

ROOT = Path(__file__).parents[2]
KEY = "pk_operator_of_the_wheel_test_0123456789"
WORKER = ["worker", "--model", "demo", "--machine", "cpu", "--market", "on_demand", "--device", "cpu"]
NUM_JOBS = 5
# PyTorch's index may be out of reach where a folder of wheels is at hand.
PIP = ISOLATED | {name: value for name, value in os.environ.items() if name == "PIP_FIND_LINKS"}

pytestmark = [pytest.mark.slow, pytest.mark.system, pytest.mark.timeout(900)]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    skip_without_index()
    folder = tmp_path_factory.mktemp("dist")
    _run(sys.executable, "-m", "build", "--outdir", folder, ROOT, environment=PIP)
    (wheel,) = folder.glob("*.whl")
    return wheel


@pytest.fixture
def install(wheel: Path, tmp_path: Path) -> Callable[[str], None]:
    """Adds an extra of the wheel, or "" for none, to the environment at `tmp_path/venv`, at the pinned versions."""
    python = tmp_path / "venv" / "bin" / "python"
    _run(sys.executable, "-m", "venv", tmp_path / "venv")

    def install(extra: str) -> None:
        if extra == "worker":
            _run("sh", ROOT / "scripts" / "install.sh", "torch", python, environment=PIP)
        pip = [python, "-m", "pip", "install", "--quiet", "-c", ROOT / "constraints.txt"]
        _run(*pip, f"ponder[{extra}] @ file://{wheel}" if extra else wheel, environment=PIP)

    return install


@pytest.fixture
def environment(database_url: str, redis_server: EmbeddedRedis, free_port: int, tmp_path: Path) -> dict[str, str]:
    """The settings of an operator, with nothing of this checkout's environment but the PATH."""
    return {
        "PATH": os.environ["PATH"],
        "HOME": str(tmp_path),
        "OMP_NUM_THREADS": "1",
        "PONDER_DATABASE_URL": database_url,
        "PONDER_REDIS_URL": redis_server.url,
        "PONDER_OPERATOR_KEY": KEY,
        "PONDER_API_KEY": KEY,
        "PONDER_PORT": str(free_port),
    }


@pytest.fixture
def start(environment: dict[str, str], tmp_path: Path) -> Iterator[Callable[..., subprocess.Popen[bytes]]]:
    """Starts a service; whatever still runs is stopped after the test."""
    started: list[subprocess.Popen[bytes]] = []

    def start(*command: str | Path) -> subprocess.Popen[bytes]:
        process = spawn(command, log=tmp_path / f"{len(started)}.log", environment=environment)
        started.append(process)
        return process

    yield start
    for process in reversed(started):
        stop(process, by=15, timeout_s=20)
    for log in sorted(tmp_path.glob("*.log")):
        print(f"--- {log.name}\n{log.read_text(errors='replace')[-4000:]}")


def test_the_wheel_alone_is_a_client_that_says_what_is_missing(
    install: Callable[[str], None], free_port: int, tmp_path: Path
) -> None:
    install("")
    ponder = tmp_path / "venv" / "bin" / "ponder"
    environment = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "PONDER_PORT": str(free_port)}
    assert "submit" in _run(ponder, "--help", environment=environment)
    problems = tmp_path / "problems.jsonl"
    problems.write_text('{"question": "1+1=?"}\n')
    submit = [ponder, "submit", problems, "--model", "demo", "--prompt", "question"]
    for key in ({}, {"PONDER_API_KEY": KEY}):
        done = subprocess.run(submit, env=environment | key, capture_output=True, text=True, check=False, timeout=60)
        assert (done.returncode, done.stdout) == (1, "")
        assert "Traceback" not in done.stderr
        assert "`ponder up`" in done.stderr
    installed = _run(tmp_path / "venv" / "bin" / "pip", "list", environment=environment)
    assert "torch" not in installed


def test_a_server_from_the_wheel_accepts_and_dispatches_a_batch_and_a_worker_from_the_wheel_answers_it(
    install: Callable[[str], None],
    start: Callable[..., subprocess.Popen[bytes]],
    environment: dict[str, str],
    engine: Engine,
    tmp_path: Path,
) -> None:
    ponder = tmp_path / "venv" / "bin" / "ponder"
    install("server")
    _run(ponder, "migrate", environment=environment)
    start(ponder, "serve")
    start(ponder, "dispatcher")
    until(lambda: _is_ready(environment["PONDER_PORT"]), 60)

    # A worker elsewhere has served the model, and is gone.
    elsewhere = start(sys.executable, "-m", "ponder.cli", *WORKER)
    until(lambda: _count(engine, "SELECT count(*) FROM incarnations WHERE state = 'ready'") == 1, 120)
    stop(elsewhere, by=15, timeout_s=20)

    problems = tmp_path / "problems.jsonl"
    rows = [{"question": f"{number}+{number}=?", "answer": str(2 * number)} for number in range(NUM_JOBS)]
    problems.write_text("".join(json.dumps(row) + "\n" for row in rows))
    fields = ["--model", "demo", "--prompt", "question", "--answer", "answer"]
    batch = _run(ponder, "submit", problems, *fields, environment=environment).strip()
    until(lambda: _count(engine, "SELECT count(*) FROM shards WHERE published_at IS NOT NULL"), 60)

    install("worker")
    start(ponder, *WORKER)
    _run(ponder, "watch", batch, environment=environment)
    results = _run(ponder, "results", batch, environment=environment).splitlines()
    assert [json.loads(line)["custom_id"] for line in results] == [f"row-{n + 1}" for n in range(NUM_JOBS)]


def _run(*command: str | Path, environment: dict[str, str] | None = None) -> str:
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=600)
    assert done.returncode == 0, f"{command}:\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
    return done.stdout


def _is_ready(port: str) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=2) as response:
            return bool(response.status == 200)
    except (urllib.error.URLError, OSError):
        return False


def _count(engine: Engine, statement: str) -> int:
    with engine.connect() as connection:
        return int(connection.execute(text(statement)).scalar_one())
