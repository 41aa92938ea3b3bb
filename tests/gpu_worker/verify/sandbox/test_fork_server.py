"""The fork server starts a process in milliseconds and leaves none behind."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest
from waiting import until

from ponder.domain.state import Verdict
from ponder_worker.verify import Case
from ponder_worker.verify.examine import Examiner, ExaminerDied, live
from ponder_worker.verify.sandbox.fork_server import ForkServer

_CASE = Case({"name": "json_schema", "schema": {"type": "integer"}}, "1")
_HANGS = Case({"name": "json_schema", "schema": {"pattern": "^(a+)+$"}}, '"' + "a" * 60 + '!"')
_JUDGES_FOR_EVER = f"""
from ponder_worker.verify.examine import Examiner, live
from ponder_worker.verify import Case
from ponder_worker.verify.sandbox.fork_server import ForkServer
server = ForkServer(live)
examiners = [Examiner(server), Examiner(server)]
print(server.pid, *(examiner.pid for examiner in examiners), flush=True)
examiners[0].examine(Case({_HANGS.verifier!r}, {_HANGS.answer!r}), 600.0)
"""


@pytest.fixture
def server() -> Iterator[ForkServer]:
    with closing(ForkServer(live)) as server:
        yield server


def _is_there(pid: int) -> bool:
    """Returns whether a process runs. A zombie does not."""
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return False


def _cpu_ticks(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11])


def _seconds(action: Callable[[], object]) -> float:
    began = time.monotonic()
    action()
    return time.monotonic() - began


def test_a_default_time_out_of_sockets_does_not_reach_the_pipes(server: ForkServer) -> None:
    """Celery sets one for the whole process while it stops, and kombu while it connects."""
    first = Examiner(server)
    socket.setdefaulttimeout(0.01)
    try:
        examiners = [Examiner(server) for _ in range(3)]
    finally:
        socket.setdefaulttimeout(None)
    for examiner in (first, *examiners, Examiner(server)):
        assert examiner.examine(_CASE, 5.0).verdict is Verdict.PASSED


def test_a_server_whose_start_waits_for_others_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A busy machine is like a sleep: time passes by the clock, and none of the processor's."""
    (tmp_path / "sleepy.py").write_text("import time\ntime.sleep(4)\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with closing(ForkServer(live, "sleepy", start_s=3)) as server:
        assert Examiner(server).examine(_CASE, 5.0).verdict is Verdict.PASSED


def test_a_case_after_a_killed_one_does_not_pay_for_the_imports() -> None:
    with closing(ForkServer(live, "ponder_worker.verify.verifiers.math")) as server:
        case = Case({"name": "math"}, "1/2", "0.5")
        examiner = Examiner(server)
        first = _seconds(lambda: examiner.examine(case, 60.0))
        pid, waits = server.pid, []
        for _ in range(5):
            os.kill(examiner.pid, signal.SIGKILL)
            with pytest.raises(ExaminerDied):
                examiner.examine(case, 60.0)
            began = time.monotonic()
            examiner = Examiner(server)
            assert examiner.examine(case, 60.0).verdict is Verdict.PASSED
            waits.append(time.monotonic() - began)
        assert server.pid == pid
    with closing(ForkServer(live, "ponder_worker.verify.verifiers.math")) as server:
        start = _seconds(server.fork)
    assert min(waits) < (start + first) / 4


def test_a_process_that_dies_says_so_and_is_not_used_again(server: ForkServer) -> None:
    examiner = Examiner(server)
    assert examiner.is_alive
    os.kill(examiner.pid, signal.SIGKILL)
    with pytest.raises(ExaminerDied):
        examiner.examine(_CASE, 5.0)
    assert not examiner.is_alive


def test_after_the_server_was_killed_its_processes_are_gone_and_the_next_one_has_a_new_server(
    server: ForkServer,
) -> None:
    orphan, first = Examiner(server), server.pid
    assert first is not None
    os.kill(first, signal.SIGKILL)
    until(lambda: not _is_there(orphan.pid), 30)
    with pytest.raises(ChildProcessError):
        Examiner(server)
    heir = Examiner(server)
    assert server.pid != first
    orphan.close()  # asks the new server to end a process that it never had
    assert heir.examine(_CASE, 60.0).verdict is Verdict.PASSED


def test_a_sigterm_to_the_whole_family_stops_no_case_that_is_being_examined(server: ForkServer) -> None:
    idle, busy = Examiner(server), Examiner(server)
    assert server.pid is not None
    with ThreadPoolExecutor(1) as pool:
        future = pool.submit(busy.examine, _HANGS, 2.0)
        until(lambda: _cpu_ticks(busy.pid) > 10, 30)
        for pid in (server.pid, idle.pid, busy.pid):
            os.kill(pid, signal.SIGTERM)
        assert future.result().reason == "the verifier took more than 2 s"
    assert not idle.is_alive
    assert Examiner(server).examine(_CASE, 60.0).verdict is Verdict.PASSED


def test_all_of_them_end_with_the_process_that_made_them_even_a_hanging_one() -> None:
    with subprocess.Popen([sys.executable, "-c", _JUDGES_FOR_EVER], stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        family = [int(pid) for pid in parent.stdout.readline().split()]
        assert len(family) == 3
        assert all(_is_there(pid) for pid in family)
        parent.kill()
    until(lambda: not any(_is_there(pid) for pid in family), 30)


def test_closing_leaves_no_process(server: ForkServer) -> None:
    examiners = [Examiner(server) for _ in range(3)]
    family = [server.pid or 0, *(examiner.pid for examiner in examiners)]
    server.close()
    until(lambda: not any(_is_there(pid) for pid in family), 30)
