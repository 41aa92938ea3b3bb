"""Starts, finds and stops the supervisor."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from ponder.embedded.child_process import spawn, stop
from ponder.embedded.home import Home
from ponder.embedded.plan import Plan
from ponder.errors import SetupError

_STOP_TIMEOUT_S = 45.0
_START_TIMEOUT_S = 180.0
_PROGRAM = [sys.executable, "-m", "ponder.embedded.supervisor"]


def start_in_background(home: Home, plan: Plan, on_phase: Callable[[str], None]) -> None:
    """Starts the stack and returns when it is ready. It outlives this process.

    Raises SetupError, with nothing left running, if it fails.

    Ctrl-C while waiting stops what was started.
    """
    process = _begin(home, plan, None)
    try:
        _follow(process, home, on_phase)
    except BaseException:
        stop(process, signal.SIGTERM, timeout_s=_STOP_TIMEOUT_S)
        raise


@contextmanager
def in_foreground(home: Home, plan: Plan, on_phase: Callable[[str], None]) -> Iterator[subprocess.Popen[bytes]]:
    """Runs the stack for the length of a `with`. It stops at the end, or by the kernel if this process is killed."""
    process = _begin(home, plan, signal.SIGTERM)
    try:
        _follow(process, home, on_phase)
        yield process
    finally:
        stop(process, signal.SIGTERM, timeout_s=_STOP_TIMEOUT_S)


def _begin(home: Home, plan: Plan, on_parent_death: signal.Signals | None) -> subprocess.Popen[bytes]:
    home.prepare()
    arguments = [*_PROGRAM, json.dumps(plan.document())]
    return spawn(arguments, log=home.log("supervisor"), on_parent_death=on_parent_death, talks=True)


def _follow(process: subprocess.Popen[bytes], home: Home, on_phase: Callable[[str], None]) -> None:
    """Reports phases until the supervisor says that it is ready."""
    assert process.stdout is not None
    for line in process.stdout:
        message = json.loads(line)
        if "error" in message:
            process.wait()
            raise SetupError(message["error"])
        if "ready" in message:
            return
        on_phase(message["phase"])
    raise SetupError(f"the supervisor ended without an error message; see {home.log('supervisor')}")


def wait_until_ready(home: Home) -> None:
    """Waits for a stack that another process is starting."""
    give_up_at = time.monotonic() + _START_TIMEOUT_S
    while home.running_pid() is not None and not (home.record() or {}).get("is_ready"):
        if time.monotonic() > give_up_at:
            raise SetupError(f"the stack in {home.path} is starting, but has not become ready; see its logs")
        time.sleep(0.2)


def stop_running(home: Home) -> bool:
    """Stops the stack and waits until it is gone. Returns False if none ran."""
    pid = home.running_pid()
    if pid is None:
        return False
    _signal(pid, signal.SIGTERM)
    give_up_at = time.monotonic() + _STOP_TIMEOUT_S
    while home.running_pid() == pid:
        if time.monotonic() > give_up_at:
            _signal(pid, signal.SIGKILL)  # the kernel then ends its children
            give_up_at = float("inf")
        time.sleep(0.1)
    return True


def _signal(pid: int, number: signal.Signals) -> None:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        pass
    except PermissionError as error:
        raise SetupError(f"the stack (pid {pid}) belongs to another user: stop it as that user") from error
