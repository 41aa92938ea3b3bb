"""Runs a program that nobody trusts. `warden` isolates it, and this module limits its time and output."""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from ponder_worker.verify.sandbox.syscalls import syscall_filter

_WARDEN = str(Path(__file__).with_name("warden.py"))
_START = Path(__file__).with_name("program_start.py").read_text(encoding="utf-8")
# The real path, because a link may lead out of the folders that the program sees.
_PYTHON = os.path.realpath(getattr(sys, "_base_executable", sys.executable))
_MEGABYTE = 1 << 20
_OUTPUT_BYTES = _MEGABYTE
_DISK_BYTES = 64 * _MEGABYTE
_NUM_PROCESSES = 4
"""Processes and threads. Each has memory of its own, so that together they have four gigabytes at most."""
_LIMITS = {
    "AS": 1024 * _MEGABYTE,
    "CPU": 10,
    "FSIZE": 16 * _MEGABYTE,
    "NOFILE": 64,
    "CORE": 0,
    "MSGQUEUE": 0,
    "MEMLOCK": 0,
}
_GONE_WITHIN_S = 5.0


class NoSandbox(Exception):
    """This machine does not allow a sandbox. The message says what it refused."""


@dataclass(frozen=True, slots=True)
class Ended:
    """The end of a program. `code` is 128 plus the signal if one ended it. `report` came through its third pipe."""

    code: int
    stdout: bytes
    stderr: bytes
    report: bytes
    over: str | None = None
    """The limit that ended it: "time" or "output"."""


def run(program: str, *, stdin: str = "", wall_s: float) -> Ended:
    """Runs Python, which gets the number of its report's pipe as an argument. Leaves no process behind.

    Raises NoSandbox.
    """
    until = time.monotonic() + wall_s
    with contextlib.ExitStack() as our_ends, contextlib.ExitStack() as their_ends:
        ends = {name: _pipe(our_ends, their_ends) for name in ("stdout", "stderr", "report", "trouble")}
        job = _job(program, stdin, ends["report"][1], ends["trouble"][1])
        process = subprocess.Popen(
            [_PYTHON, "-I", "-S", _WARDEN],
            stdin=subprocess.PIPE,
            stdout=ends["stdout"][1],
            stderr=ends["stderr"][1],
            env={},
            cwd="/",
            pass_fds=(ends["report"][1], ends["trouble"][1]),
            start_new_session=True,
        )
        their_ends.close()
        try:
            assert process.stdin is not None
            with contextlib.suppress(BrokenPipeError), process.stdin as pipe:
                pipe.write(job)
            output, over = _collect({name: end for name, (end, _) in ends.items()}, until)
        finally:
            code = _end(process)
    if output["trouble"]:
        raise NoSandbox(output["trouble"].decode(errors="replace"))
    return Ended(code, output["stdout"], output["stderr"], output["report"], over)


def _pipe(our_ends: contextlib.ExitStack, their_ends: contextlib.ExitStack) -> tuple[int, int]:
    read, write = os.pipe()
    our_ends.callback(os.close, read)
    their_ends.callback(os.close, write)
    return read, write


def _job(program: str, stdin: str, report_fd: int, trouble_fd: int) -> bytes:
    job = {
        "start": _START,
        "program": program,
        "arguments": [str(report_fd)],
        "stdin": stdin,
        "trouble_fd": trouble_fd,
        "parent": os.getpid(),
        "python": _PYTHON,
        "paths": sorted({sys.base_prefix, sys.base_exec_prefix, os.path.realpath(sys.base_prefix)}),
        "disk_bytes": _DISK_BYTES,
        "num_processes": _NUM_PROCESSES,
        "limits": _LIMITS,
        "filter": syscall_filter().hex(),
    }
    return json.dumps(job).encode()


def _collect(streams: Mapping[str, int], until: float) -> tuple[dict[str, bytes], str | None]:
    """Returns the content of each stream once all are closed, and the limit that was passed, if any."""
    output = dict.fromkeys(streams, b"")
    with selectors.DefaultSelector() as selector:
        for name, number in streams.items():
            selector.register(number, selectors.EVENT_READ, name)
        while selector.get_map():
            ready = selector.select(max(0.0, until - time.monotonic()))
            if not ready:
                return output, "time"
            for key, _ in ready:
                data = os.read(key.fd, 65_536)
                if not data:
                    selector.unregister(key.fd)
                output[key.data] += data
                if len(output[key.data]) > _OUTPUT_BYTES:
                    return output, "output"
    return output, None


def _end(process: subprocess.Popen[bytes]) -> int:
    """Ends the warden, which on SIGTERM first ends the program's whole namespace."""
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.terminate()
        return process.wait(_GONE_WITHIN_S)
    process.kill()
    return process.wait()
