"""Runs a program that nobody trusts. `warden` isolates it, and this module limits its time, output and system calls."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import platform
import selectors
import struct
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

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

# AUDIT_ARCH_… of linux/audit.h
_ARCHITECTURES = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
# Calls that no answer needs. They give access to sockets, namespaces, memory that no limit counts, and the parts of the
# kernel in which holes are found. The numbers are those of the two architectures.
_DENIED: dict[str, tuple[int, int]] = {
    "socket": (41, 198),
    "socketpair": (53, 199),
    "ptrace": (101, 117),
    "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271),
    "unshare": (272, 97),
    "setns": (308, 268),
    "mount": (165, 40),
    "umount2": (166, 39),
    "pivot_root": (155, 41),
    "open_tree": (428, 428),
    "move_mount": (429, 429),
    "fsopen": (430, 430),
    "mount_setattr": (442, 442),
    "open_by_handle_at": (304, 265),
    "shmget": (29, 194),
    "msgget": (68, 186),
    "memfd_create": (319, 279),
    "memfd_secret": (447, 447),
    "bpf": (321, 280),
    "perf_event_open": (298, 241),
    "userfaultfd": (323, 282),
    "io_uring_setup": (425, 425),
    "add_key": (248, 217),
    "request_key": (249, 218),
    "keyctl": (250, 219),
    "personality": (135, 92),
    "init_module": (175, 105),
    "finit_module": (313, 273),
    "kexec_load": (246, 104),
}
_CLONE, _CLONE3 = (56, 220), (435, 435)
_NEW_NAMESPACES = 0x7E020000
_X32 = 0x40000000

_LOAD, _EQUAL, _AT_LEAST, _ANY_BIT, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_NUMBER, _ARCHITECTURE, _FIRST_ARGUMENT = 0, 4, 16
_ALLOW, _KILL, _FAIL = 0x7FFF0000, 0x80000000, 0x00050000


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
        "filter": _syscall_filter().hex(),
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


def _syscall_filter(machine: str | None = None) -> bytes:
    """Returns an array of `struct sock_filter`, which is empty for an unknown architecture.

    https://www.kernel.org/doc/html/latest/userspace-api/seccomp_filter.html
    """
    machine = machine or platform.machine()
    if machine not in _ARCHITECTURES:
        return b""
    column = list(_ARCHITECTURES).index(machine)
    # A step is (code, value, target if true, target if false). Targets get their places once all steps are known.
    steps: list[tuple[int, int, str, str]] = [(_EQUAL, numbers[column], "fail", "") for numbers in _DENIED.values()]
    if machine == "x86_64":
        steps.insert(0, (_AT_LEAST, _X32, "fail", ""))
    steps += [
        (_EQUAL, _CLONE3[column], "absent", ""),  # its flags are behind a pointer; libc then uses clone
        (_EQUAL, _CLONE[column], "", "allow"),
        (_LOAD, _FIRST_ARGUMENT, "", ""),
        (_ANY_BIT, _NEW_NAMESPACES, "fail", "allow"),
    ]
    ends = {"allow": _ALLOW, "fail": _FAIL | errno.EPERM, "absent": _FAIL | errno.ENOSYS}
    places = {name: len(steps) + place for place, name in enumerate(ends)}
    code = [(_LOAD, 0, 0, _ARCHITECTURE), (_EQUAL, 1, 0, _ARCHITECTURES[machine]), (_RETURN, 0, 0, _KILL)]
    code.append((_LOAD, 0, 0, _NUMBER))
    for place, (operation, value, so, not_so) in enumerate(steps):
        jumps = [places[name] - place - 1 if name else 0 for name in (so, not_so)]
        code.append((operation, jumps[0], jumps[1], value))
    code += [(_RETURN, 0, 0, value) for value in ends.values()]
    return b"".join(struct.pack("=HBBI", *instruction) for instruction in code)
