"""Running a program that nobody trusts: what it is kept from is `warden`'s to arrange, how long it may is ours."""

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
# Not a link to it, which could lead out of what the program gets to see.
_PYTHON = os.path.realpath(getattr(sys, "_base_executable", sys.executable))
_MEGABYTE = 1 << 20
_OUTPUT_BYTES = _MEGABYTE
_DISK_BYTES = 64 * _MEGABYTE
_NUM_PROCESSES = 4
"""And threads. Each has memory of its own, so that all of them have four gigabytes at most."""
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
    """This machine does not let us put a program apart; says what it refused."""


@dataclass(frozen=True, slots=True)
class Ended:
    """code: of the process, 128 and the signal's number if one ended it. report: what it wrote to its third pipe."""

    code: int
    stdout: bytes
    stderr: bytes
    report: bytes
    over: str | None = None
    """Which limit ended it: "time" or "output"."""


def run(program: str, *, stdin: str = "", wall_s: float) -> Ended:
    """Python that gets the number of its report's pipe as an argument. When this returns, no process is left.

    Raises NoSandbox.
    """
    until = time.monotonic() + wall_s
    with contextlib.ExitStack() as ours, contextlib.ExitStack() as theirs:
        ends = {name: _pipe(ours, theirs) for name in ("stdout", "stderr", "report", "trouble")}
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
        theirs.close()
        try:
            assert process.stdin is not None
            with contextlib.suppress(BrokenPipeError), process.stdin as pipe:
                pipe.write(job)
            said, over = _collect({name: end for name, (end, _) in ends.items()}, until)
        finally:
            code = _end(process)
    if said["trouble"]:
        raise NoSandbox(said["trouble"].decode(errors="replace"))
    return Ended(code, said["stdout"], said["stderr"], said["report"], over)


def _pipe(ours: contextlib.ExitStack, theirs: contextlib.ExitStack) -> tuple[int, int]:
    read, write = os.pipe()
    ours.callback(os.close, read)
    theirs.callback(os.close, write)
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
    """What came on each until all are closed, or which limit was passed."""
    said = dict.fromkeys(streams, b"")
    with selectors.DefaultSelector() as selector:
        for name, number in streams.items():
            selector.register(number, selectors.EVENT_READ, name)
        while selector.get_map():
            ready = selector.select(max(0.0, until - time.monotonic()))
            if not ready:
                return said, "time"
            for key, _ in ready:
                data = os.read(key.fd, 65_536)
                if not data:
                    selector.unregister(key.fd)
                said[key.data] += data
                if len(said[key.data]) > _OUTPUT_BYTES:
                    return said, "output"
    return said, None


def _end(process: subprocess.Popen[bytes]) -> int:
    """On SIGTERM the warden ends the program's whole namespace and then itself."""
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.terminate()
        return process.wait(_GONE_WITHIN_S)
    process.kill()
    return process.wait()
