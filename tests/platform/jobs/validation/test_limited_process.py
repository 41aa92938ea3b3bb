"""Limited processes never outlive their parent."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest
from waiting import until

from ponder.jobs.validation.limited_process import LimitedProcess, ProcessEnded
from ponder.jobs.validation.submission_reader import answer_body

_PARENT = """
import sys, time
from ponder.jobs.validation.limited_process import LimitedProcess
from ponder.jobs.validation.submission_reader import answer_body
child = LimitedProcess(answer_body)
child.send(sys.argv[1].encode())
print(child.pid, flush=True)
time.sleep(600)
"""
_BUSY = (
    '{"verifier": {}, "line_s": 600, "batch_s": 600}\n'
    '{"input_file_id": "a", "completion_window": "24h", "ponder": {"verifier": {"name": "regex", "pattern": "'
    + "(?i)"
    + "[\x01-\U0010fffe]" * 390
    + '"}}}'
).replace("\x01", "\\u0001")


def test_a_process_ends_in_the_middle_of_its_work_when_its_parent_is_killed() -> None:
    parent = subprocess.Popen([sys.executable, "-c", _PARENT, _BUSY], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    pid = int(parent.stdout.readline())
    until(lambda: _processor_s(pid) >= 1.0, 60)  # it is at work
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    until(lambda: not _is_running(pid), 10)


def test_an_ended_process_raises_an_error() -> None:
    process = LimitedProcess(answer_body)
    process.end()
    with pytest.raises(ProcessEnded):
        process.send(b"{}\n")


def _is_running(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat") as stat:
            return stat.read().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def _processor_s(pid: int) -> float:
    with open(f"/proc/{pid}/stat") as stat:
        fields = stat.read().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
