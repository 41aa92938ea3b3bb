"""The demo as a user runs it, with real processes, on few problems."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
from waiting import until

pytestmark = [pytest.mark.system, pytest.mark.timeout(300)]


@pytest.fixture
def start(home: Path) -> Callable[..., subprocess.Popen[str]]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PONDER_")}
    environment |= {"PONDER_HOME": str(home), "PONDER_PORT": str(port)}

    def begin(*arguments: str) -> subprocess.Popen[str]:
        program = [sys.executable, "-m", "ponder.cli", "demo", *arguments]
        pipe = subprocess.PIPE
        return subprocess.Popen(
            program,
            stdout=pipe,
            stderr=pipe,
            text=True,
            env=environment,
            # A shell that runs the tests in the background ignores SIGINT, which children inherit.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509
        )

    return begin


def those_of(home: Path) -> list[psutil.Process]:
    """Every process of the stack in this home."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get("PONDER_HOME") == str(home) or str(home) in " ".join(process.cmdline()):
                found.append(process)
        except (psutil.Error, OSError):
            continue
    return found


def test_a_stopped_demo_goes_on_shows_everything_and_leaves_nothing(
    start: Callable[..., subprocess.Popen[str]], home: Path
) -> None:
    unfinished = home / "demo" / "unfinished.json"
    first = start("--problems", "5")
    until(lambda: unfinished.exists() and len(json.loads(unfinished.read_text())["batches"]) == 5, 120)
    first.send_signal(signal.SIGINT)
    _, said = first.communicate(timeout=90)
    assert first.returncode == 130
    assert said.count("goes on from here") == 1
    assert "Traceback" not in said
    assert those_of(home) == []

    batches = json.loads(unfinished.read_text())["batches"]
    second = start("--problems", "3")  # a number for the next run, as this one has its problems already
    shown, said = second.communicate(timeout=280)
    assert second.returncode == 0, said
    assert "going on with the run that was stopped" in said
    for part in ("Solved, with the 95 % interval", "Cost per successful task", "The bill: $", "✓", "Next:"):
        assert part in shown
    assert "\x1b" not in shown + said
    (results,) = (home / "demo").glob("*.results.jsonl")
    lines = [json.loads(line) for line in results.read_text().splitlines()]
    assert len({line["custom_id"] for line in lines}) == 5 * 5 * 5
    assert set(batches) == {line["custom_id"].partition("/")[0] for line in lines}
    assert not unfinished.exists()
    assert those_of(home) == []


def test_a_killed_demo_leaves_nothing(start: Callable[..., subprocess.Popen[str]], home: Path) -> None:
    demo = start("--problems", "2")
    until(lambda: (home / "worker-1.log").exists() and "engine_started" in (home / "worker-1.log").read_text(), 120)
    assert len(those_of(home)) >= 6
    demo.kill()
    demo.communicate()
    until(lambda: not those_of(home), 40)
