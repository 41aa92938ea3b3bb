"""Results that somebody follows while the API's process is killed and started again."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx2
import pytest
from sqlalchemy import Engine, text
from waiting import until

from ponder.domain.state import IncarnationState, JobState, Verdict
from ponder.embedded.child_process import spawn
from ponder.embedded.redis import EmbeddedRedis
from ponder.jobs.claim import claim
from ponder.jobs.incarnation import ready, register
from ponder.jobs.tick import Settlement, TickReport, tick
from ponder.store.first_key import ensure_operator_key

pytestmark = [pytest.mark.system, pytest.mark.timeout(180)]

NUM_JOBS = 240
_A_TICK = 4

Start = Callable[..., subprocess.Popen[bytes]]


@pytest.fixture
def environment(database_url: str, redis_server: EmbeddedRedis, free_port: int, tmp_path: Path) -> dict[str, str]:
    return os.environ | {
        "PONDER_HOME": str(tmp_path / "home"),
        "PONDER_DATABASE_URL": database_url,
        "PONDER_REDIS_URL": redis_server.url,
        "PONDER_PORT": str(free_port),
        "PONDER_API_KEY": "pk-operator",
    }


@pytest.fixture
def start(environment: dict[str, str], tmp_path: Path) -> Iterator[Start]:
    """Starts a service. Whatever it has started is gone after the test."""
    with ExitStack() as stack:

        def run(name: str) -> subprocess.Popen[bytes]:
            arguments = [sys.executable, "-m", "ponder.cli", name]
            process = spawn(arguments, log=tmp_path / f"{name}.log", environment=environment)
            stack.callback(process.wait)
            stack.callback(process.kill)
            return process

        yield run


def _submit(http: httpx2.Client) -> str:
    body = {"model": "demo", "messages": [{"role": "user", "content": "1 + 1?"}]}
    line = {"method": "POST", "url": "/v1/chat/completions", "body": body}
    content = b"".join(json.dumps({"custom_id": f"job-{n}", **line}).encode() + b"\n" for n in range(NUM_JOBS))
    file = http.post("/v1/files", files={"file": ("in.jsonl", content)}, data={"purpose": "batch"}).raise_for_status()
    batch = {"input_file_id": file.json()["id"], "endpoint": "/v1/chat/completions", "completion_window": "1h"}
    return str(http.post("/v1/batches", json=batch).raise_for_status().json()["id"])


@pytest.fixture
def settle(engine: Engine) -> Callable[[int], None]:
    """A worker without an engine; call it with the number of jobs that it is to settle, a few at a time."""
    who: dict[str, Any] = {"id": "inc_1", "worker": "w", "host": "here", "pid": 1, "model": "demo"}
    with engine.begin() as connection:
        ensure_operator_key(connection, "pk-operator", tenant="home", name="test")
        register(connection, machine="cpu", market="on_demand", lease_s=600, **who)
        ready(connection, "inc_1", fingerprint="f", context_length=512, has_reward_model=False, room_tokens=10**6)
    held: list[int] = []
    number = 0

    def claim_next() -> bool:
        with engine.begin() as connection:
            shards = connection.execute(
                text("SELECT id FROM shards WHERE state = 'queued' AND published_at IS NOT NULL")
            )
            for shard_id in shards.scalars().all():
                claimed = claim(connection, shard_id, "inc_1")
                if claimed is not None:
                    held.extend(job.job_id for job in claimed.jobs)
        return bool(held)

    def do(num_jobs: int) -> None:
        nonlocal number
        for _ in range(num_jobs // _A_TICK):
            if not held:
                until(claim_next, 60)
            now = [held.pop() for _ in range(min(_A_TICK, len(held)))]
            number += 1
            settled = [Settlement(job, JobState.COMPLETED, Verdict.UNVERIFIED, answer="2") for job in now]
            with engine.begin() as connection:
                tick(
                    connection,
                    TickReport("inc_1", number, 600, progressed=True, state=IncarnationState.READY, settled=settled),
                )

    return do


def test_following_survives_an_api_that_is_killed_and_prints_every_line_once(
    start: Start, settle: Callable[[int], None], environment: dict[str, str], free_port: int, tmp_path: Path
) -> None:
    start("dispatcher")
    api = start("serve")
    with httpx2.Client(
        base_url=f"http://127.0.0.1:{free_port}", headers={"Authorization": "Bearer pk-operator"}, trust_env=False
    ) as http:
        until(lambda: _answers(http), 60)
        batch = _submit(http)
    seen = tmp_path / "seen.jsonl"
    command = f"{sys.executable} -m ponder.cli results {batch} --follow | tee {seen} | wc -l"
    counter = subprocess.Popen(["sh", "-c", command], env=environment, stdout=subprocess.PIPE)

    settle(NUM_JOBS // 3)
    until(lambda: seen.exists() and seen.read_bytes().count(b"\n") > 0, 60)
    working = threading.Thread(target=settle, args=(NUM_JOBS // 3,))
    working.start()
    os.kill(api.pid, signal.SIGKILL)
    api.wait()
    working.join(60)
    api = start("serve")
    until(lambda: seen.read_bytes().count(b"\n") > NUM_JOBS // 3, 60)
    os.kill(api.pid, signal.SIGKILL)
    settle(NUM_JOBS // 3)
    start("serve")

    printed, _ = counter.communicate(timeout=90)
    assert counter.returncode == 0
    assert int(printed) == NUM_JOBS
    lines = [json.loads(line) for line in seen.read_text().splitlines()]
    assert {line["custom_id"] for line in lines} == {f"job-{number}" for number in range(NUM_JOBS)}


def _answers(http: httpx2.Client) -> bool:
    try:
        return http.get("/readyz").status_code == 200
    except httpx2.TransportError:
        return False
