"""`ponder up --autoscale`: workers come for work, one is killed, and all go when there is none."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from process_tree import children, command_of, is_alive
from sqlalchemy import text
from waiting import until

from ponder.embedded.home import Home
from ponder.embedded.postgres import EmbeddedPostgres
from ponder.ledger.book import check
from ponder.store.database import connect

pytestmark = [pytest.mark.slow, pytest.mark.system, pytest.mark.timeout(240)]

NUM_JOBS = 120


@dataclass(frozen=True)
class Stack:
    home: Path
    port: int

    def ponder(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        environment = {name: value for name, value in os.environ.items() if not name.startswith("PONDER_")}
        environment |= {
            "PONDER_HOME": str(self.home), "PONDER_PORT": str(self.port), "PONDER_LEASE_S": "4",
            "PONDER_TICK_S": "0.5", "PONDER_SHARD_TOKENS": "5000", "PONDER_FLEET_INTERVAL_S": "0.5",
            "PONDER_FLEET_COOL_DOWN_S": "3",
        }  # fmt: skip
        program = [sys.executable, "-m", "ponder.cli", *arguments]
        return subprocess.run(program, capture_output=True, text=True, env=environment, timeout=120, check=False)

    def read(self, *arguments: str) -> Any:
        return json.loads(self.ponder(*arguments, "--json").stdout)

    @property
    def supervisor(self) -> int:
        pid = Home(self.home).running_pid()
        assert pid is not None
        return pid

    def workers(self) -> list[int]:
        """The processes of workers, without those of their engines."""
        return [pid for pid in children(self.supervisor) if "ponder.cli worker" in command_of(pid)]

    def sql(self, statement: str, **values: object) -> list[Any]:
        engine = connect(EmbeddedPostgres(self.home).url)
        with engine.begin() as connection:
            result = connection.execute(text(statement), values)
            rows = list(result) if result.returns_rows else []
        engine.dispose()
        return rows


@pytest.fixture
def stack(home: Path) -> Iterator[Stack]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        made = Stack(home, probe.getsockname()[1])
    yield made
    made.ponder("down")
    for log in sorted(home.glob("*.log")):
        print(f"--- {log.name}\n{log.read_text(errors='replace')[-6000:]}")


def _submit(stack: Stack, folder: Path) -> str:
    lines = [
        {
            "custom_id": f"job-{number}",
            "method": "POST",
            "url": "/v1/chat/completions",
            "body": {
                "model": "demo",
                "messages": [{"role": "user", "content": f"Compute {number} + {number}."}],
                "max_tokens": 200,
                "ponder": {"strategy": {"name": "best_of_n", "n": 8}},
            },
        }
        for number in range(NUM_JOBS)
    ]
    batch = folder / "batch.jsonl"
    batch.write_text("\n".join(map(json.dumps, lines)))
    submitted = stack.ponder("submit", str(batch))
    assert submitted.returncode == 0, submitted.stderr
    return submitted.stdout.strip()


def _make_due(stack: Stack, batch: str, due_in_s: float) -> None:
    due = "UPDATE batches SET expires_at = clock_timestamp() + :due_in_s * interval '1 second' WHERE id = :id"
    stack.sql(due, id=batch, due_in_s=due_in_s)


def test_workers_come_for_work_are_replaced_when_killed_and_go_afterwards(stack: Stack, tmp_path: Path) -> None:
    up = stack.ponder("up", "--autoscale", "--max", "2", "--threads", "1")
    assert up.returncode == 0, up.stderr
    batch = _submit(stack, tmp_path)
    until(lambda: stack.sql("SELECT 1 FROM results"), 60)  # how fast a worker is, is known from now on
    (plan,) = stack.read("fleet", "plan")
    tokens, rate = plan["situation"]["loads"][0]["tokens"], plan["situation"]["offers"][0]["tokens_per_s"]
    _make_due(stack, batch, max(20.0, tokens / rate / 3))  # too soon for one worker
    until(lambda: len(stack.workers()) == 2, 20)

    ((victim,),) = stack.sql("SELECT pid FROM incarnations WHERE state = 'ready'")
    os.kill(victim, signal.SIGKILL)
    until(lambda: len({*stack.workers()} - {victim}) == 2, 20)
    _make_due(stack, batch, 3600)
    until(lambda: stack.sql("SELECT 1 FROM batches WHERE state = 'completed'"), 60)
    until(lambda: not stack.workers(), 60)

    assert [tuple(row) for row in stack.sql("SELECT state, count(*) FROM jobs GROUP BY state")] == [
        ("completed", NUM_JOBS)
    ]
    assert stack.sql("SELECT count(*) FROM attempts WHERE outcome = 'settled'")[0][0] == NUM_JOBS
    for (incarnation,) in stack.sql("SELECT id FROM incarnations"):
        engine = connect(EmbeddedPostgres(stack.home).url)
        with engine.begin() as connection:
            check(connection, incarnation)
        engine.dispose()
    print(stack.ponder("fleet", "log").stdout)
    story = [(entry["action"], entry["reason"]) for entry in stack.read("fleet", "log")]
    assert story[0] == ("start", "a first worker of demo: none has served it yet, so jobs cannot ask for it")
    assert [action for action, _ in story].count("start") == 3
    died, *others = [reason for action, reason in story if action == "ended"]
    assert died == "it died or was taken away: its provider has it no more"
    # One may have been too many before it could be asked to drain.
    assert (others[-1], len(others), set(others) - {"it was stopped"}) == ("it was drained", 2, {"it was drained"})

    family = children(stack.supervisor)
    assert stack.ponder("down").returncode == 0
    assert not any(map(is_alive, family))


def test_whatever_is_killed_no_worker_is_left_alone_and_none_is_started_twice(stack: Stack) -> None:
    up = ("up", "--autoscale", "--min", "1", "--max", "2", "--threads", "1")
    assert (started := stack.ponder(*up)).returncode == 0, started.stderr
    (worker,) = stack.workers()
    (autoscaler,) = (pid for pid in children(stack.supervisor) if "ponder.cli autoscaler" in command_of(pid))
    os.kill(autoscaler, signal.SIGKILL)
    until(lambda: stack.workers() not in ([], [worker]), 60)
    until(lambda: stack.sql("SELECT 1 FROM incarnations WHERE state = 'ready' AND end_reason IS NULL"), 60)
    assert len(stack.workers()) == 1
    assert not is_alive(worker)
    assert [row.end_reason for row in stack.sql("SELECT end_reason FROM incarnations ORDER BY started_at")] == [
        "SIGTERM",
        None,
    ], "it handed back what it held"

    family = children(stack.supervisor)
    os.kill(stack.supervisor, signal.SIGKILL)
    until(lambda: not any(map(is_alive, family)), 30)
    assert (started := stack.ponder(*up)).returncode == 0, started.stderr
    until(lambda: len(stack.workers()) == 1, 30)
    family = children(stack.supervisor)
    assert stack.ponder("down").returncode == 0
    assert not any(map(is_alive, family))
