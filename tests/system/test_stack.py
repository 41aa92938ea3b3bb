"""`ponder up` with a worker in it, killed; and what all of it logs."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from process_tree import children, is_alive
from waiting import until

pytestmark = [pytest.mark.system, pytest.mark.timeout(240)]

Ponder = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def ponder(home: Path) -> Iterator[Ponder]:
    """The command line; whatever it has started is stopped after the test, failed or not."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        environment = {name: value for name, value in os.environ.items() if not name.startswith("PONDER_")}
        environment |= {"PONDER_HOME": str(home), "PONDER_PORT": str(port)}
        program = [sys.executable, "-m", "ponder.cli", *arguments]
        return subprocess.run(program, capture_output=True, text=True, env=environment, timeout=120, check=False)

    yield run
    run("down")


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
    until(lambda: "shard_taken" in log.read_text(), 60)
    family = children(json.loads(ponder("status", "--format", "json").stdout)["pid"])
    assert ponder("down").returncode == 0
    assert not any(map(is_alive, family))
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    assert [line["num_jobs"] for line in lines if line["event"] == "released"] == [1]


def _pids(ponder: Ponder) -> dict[str, int]:
    status = json.loads(ponder("status", "--format", "json").stdout)
    return {service["name"]: service["pid"] for service in status["services"]}


def test_every_line_of_every_service_has_the_same_fields_and_no_prompt_or_key_whatever_breaks(
    ponder: Ponder, home: Path, slow_model: Path, tmp_path: Path
) -> None:
    assert (started := ponder("up", "--model", str(slow_model), "--name", "slow")).returncode == 0, started.stderr
    batch = tmp_path / "batch.jsonl"
    body = {"model": "slow", "messages": [{"role": "user", "content": "Xyzzy."}], "max_tokens": 4000}
    line = {"custom_id": "a", "method": "POST", "url": "/v1/chat/completions", "body": body}
    batch.write_text(json.dumps(line))
    assert (submitted := ponder("submit", str(batch))).returncode == 0, submitted.stderr
    worker = home / "worker.log"
    until(lambda: "shard_taken" in worker.read_text(), 30)
    pids = _pids(ponder)
    os.kill(pids["redis"], signal.SIGKILL)
    until(lambda: "celery" in worker.read_text().partition("shard_taken")[2], 30)
    os.kill(pids["postgres"], signal.SIGKILL)
    until(lambda: _pids(ponder)["postgres"] not in (None, pids["postgres"]), 60)
    [engine] = [
        entry["engine_pid"] for entry in map(json.loads, worker.read_text().splitlines()) if "engine_pid" in entry
    ]
    os.kill(engine, signal.SIGKILL)
    until(lambda: '"event": "leaving"' in worker.read_text(), 60)
    os.kill(pids["serve"], signal.SIGKILL)
    until(lambda: _pids(ponder)["serve"] not in (None, pids["serve"]), 30)
    time.sleep(1)
    key = ponder("env").stdout.partition("OPENAI_API_KEY=")[2].split()[0]
    assert ponder("down").returncode == 0

    found: dict[str, set[str]] = {}
    for log in home.glob("*.log"):
        if log.stem in ("postgres", "redis"):  # their own, in their own form
            continue
        for number, text in enumerate(log.read_text().splitlines(), 1):
            try:
                entry = json.loads(text)
            except json.JSONDecodeError:
                pytest.fail(f"{log.name}:{number} is no JSON: {text}")
            assert datetime.fromisoformat(entry["time"]).utcoffset() is not None
            assert entry["level"] in ("debug", "info", "warning", "error", "critical")
            assert isinstance(entry["event"], str)
            found.setdefault(log.stem, set()).add(entry["service"])
            if entry["service"] in ("worker", "engine"):
                assert entry["incarnation"].startswith("inc_")
        assert "Xyzzy" not in log.read_text()
        assert key not in log.read_text()
    assert found.pop("worker") >= {"worker"}
    assert found == {"serve": {"api"}, "dispatcher": {"dispatcher"}, "supervisor": {"supervisor"}}


def _answers(ponder: Ponder, tmp_path: Path, url: str, *bodies: dict[str, object]) -> list[dict[str, Any]]:
    """Runs one line for each body. Returns the bodies of the answers."""
    path, out = tmp_path / "lines.jsonl", tmp_path / "out.jsonl"
    lines = [
        {"custom_id": str(number), "method": "POST", "url": url, "body": {"model": "demo", "max_tokens": 12} | body}
        for number, body in enumerate(bodies)
    ]
    path.write_text("\n".join(map(json.dumps, lines)))
    assert (ran := ponder("run", str(path), "-o", str(out))).returncode == 0, ran.stderr
    return [json.loads(line)["response"]["body"] for line in out.read_text().splitlines()]


def test_lines_of_either_endpoint_are_answered_as_they_ask(ponder: Ponder, tmp_path: Path) -> None:
    assert (started := ponder("up")).returncode == 0, started.stderr
    user, begun = {"role": "user", "content": "Compute 3 + 4."}, {"role": "assistant", "content": "3 + 4 ="}
    forced, continued = _answers(
        ponder,
        tmp_path,
        "/v1/chat/completions",
        {"messages": [user], "logit_bias": {"40": 100}, "ignore_eos": True, "logprobs": True, "top_logprobs": 2},
        {"messages": [user, begun], "continue_final_message": True, "temperature": 0},
    )
    content = forced["choices"][0]["logprobs"]["content"]
    assert len({entry["token"] for entry in content}) == 1
    assert [len(entry["top_logprobs"]) for entry in content] == [2] * 12
    assert forced["choices"][0]["finish_reason"] == "length"
    assert not continued["choices"][0]["message"]["content"].startswith("3 + 4 =")
    best_of_two = {"name": "best_of_n", "n": 2, "early_stopping": None}
    text, ids = _answers(
        ponder,
        tmp_path,
        "/v1/completions",
        {"prompt": "3 + 4 =", "temperature": 0, "logprobs": 3},
        {"prompt": [40, 41, 42], "min_tokens": 12, "ponder": {"strategy": best_of_two}},
    )
    assert text["object"] == ids["object"] == "text_completion"
    assert text["choices"][0]["text"].startswith("".join(text["choices"][0]["logprobs"]["tokens"][:1]))
    assert (ids["usage"]["prompt_tokens"], ids["usage"]["completion_tokens"]) == (3, 24)
