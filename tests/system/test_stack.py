"""`ponder up` with a worker in it, killed."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from fleet import children, is_alive, until

pytestmark = [pytest.mark.system, pytest.mark.timeout(240)]

Ponder = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def ponder(home: Path) -> Ponder:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        environment = {name: value for name, value in os.environ.items() if not name.startswith("PONDER_")}
        environment |= {"PONDER_HOME": str(home), "PONDER_PORT": str(port)}
        program = [sys.executable, "-m", "ponder.cli", *arguments]
        return subprocess.run(program, capture_output=True, text=True, env=environment, timeout=120, check=False)

    return run


def test_a_stack_that_is_killed_leaves_no_process_and_one_that_is_stopped_hands_its_jobs_back(
    ponder: Ponder, home: Path, slow_model: Path, tmp_path: Path
) -> None:
    up = ("up", "--model", str(slow_model), "--name", "slow")
    assert (started := ponder(*up)).returncode == 0, started.stderr
    supervisor = json.loads(ponder("status", "--format", "json").stdout)["pid"]
    family = children(supervisor)
    assert len(family) >= 6, "Postgres, Redis, the API, the dispatcher, a worker and its engine process"
    os.kill(supervisor, signal.SIGKILL)
    until(lambda: not any(map(is_alive, family)), 15)

    assert (started := ponder(*up)).returncode == 0, started.stderr
    batch = tmp_path / "batch.jsonl"
    body = {"model": "slow", "messages": [{"role": "user", "content": "Think."}], "max_tokens": 4000}
    line = {"custom_id": "a", "method": "POST", "url": "/v1/chat/completions", "body": body}
    batch.write_text(json.dumps(line))
    assert (submitted := ponder("submit", str(batch))).returncode == 0, submitted.stderr
    log = home / "worker.log"
    until(lambda: "shard_taken" in log.read_text(), 20)
    family = children(json.loads(ponder("status", "--format", "json").stdout)["pid"])
    assert ponder("down").returncode == 0
    assert not any(map(is_alive, family))
    assert '"num_jobs": 1, "event": "released"' in log.read_text()
