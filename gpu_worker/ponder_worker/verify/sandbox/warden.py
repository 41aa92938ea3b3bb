"""Isolates itself and then a program from everything else on the machine. `sandbox` runs it as a script.

Needs only the standard library, Linux 5.14, and either root or the right to make user namespaces. There are three
processes: one outside that waits, the first one of a new process namespace, and the program. When the first one ends,
the kernel ends all others in its namespace. Errors go to the pipe `trouble_fd`, which the program does not get.
"""

from __future__ import annotations

import ctypes
import json
import os
import resource
import signal
import struct
import sys
from typing import Any, NoReturn

_LIBC = ctypes.CDLL(None, use_errno=True)
_PR_SET_PDEATHSIG, _PR_SET_DUMPABLE, _PR_SET_SECCOMP, _PR_SET_NO_NEW_PRIVS = 1, 4, 22, 38
_SECCOMP_MODE_FILTER = 2
_NEW_USER = 0x10000000
# New namespaces for mounts, cgroups, host name, System V IPC, processes and network.
_NEW_REST = 0x00020000 | 0x02000000 | 0x04000000 | 0x08000000 | 0x20000000 | 0x40000000
_MS_NOSUID, _MS_NODEV, _MS_BIND, _MS_REC, _MS_PRIVATE = 2, 4, 1 << 12, 1 << 14, 1 << 18
_MNT_DETACH = 2
_SYS_MOUNT_SETATTR, _AT_FDCWD, _AT_RECURSIVE = 442, -100, 0x8000
_READ_ONLY = (ctypes.c_uint64 * 4)(1 | 2 | 4, 0, 0, 0)  # MOUNT_ATTR_RDONLY | NOSUID | NODEV
_ROOT = "/proc"
"""The folder where the program's root is put together. It always exists, and the program must not see it."""
_FOLDER = "/tmp"  # noqa: S108  # of the program's own root
_SYSTEM = ("/usr", "/lib", "/lib32", "/lib64", "/bin")
_DEVICES = ("null", "zero", "random", "urandom")
_FIRST_UID, _NUM_UIDS = 61_184, 4_336
"""Ids of systemd's dynamic users, which own nothing. Limits on processes count by user."""


def main() -> NoReturn:
    job = json.load(sys.stdin.buffer)
    try:
        _die_with(job["parent"])
        os.set_inheritable(job["trouble_fd"], False)
        _isolate()
        _run_first(job)
    except OSError as error:
        os.write(job["trouble_fd"], f"{error.filename or 'it'}: {error.strerror}".encode())
    os._exit(70)


def _die_with(parent: int) -> None:
    _call("prctl", _PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(70)


def _isolate() -> None:
    """Makes new namespaces. Without root, makes a user namespace too, in which the user stays the same."""
    _write("/proc/self/oom_score_adj", "1000")
    uid, gid = os.getuid(), os.getgid()
    _call("unshare", _NEW_REST | (_NEW_USER if uid else 0))
    if uid:
        _write("/proc/self/setgroups", "deny")
        _write("/proc/self/uid_map", f"{uid} {uid} 1")
        _write("/proc/self/gid_map", f"{gid} {gid} 1")


def _run_first(job: dict[str, Any]) -> NoReturn:
    """Waits for the first process of the namespace. On SIGTERM ends it, and with it everything inside."""
    alive, ours = os.pipe()
    first = os.fork()
    if not first:
        os.close(ours)
        _live_as_first(job, alive)
    signal.signal(signal.SIGTERM, lambda number, frame: os.kill(first, signal.SIGKILL))
    os._exit(_code(os.waitpid(first, 0)[1]))


def _live_as_first(job: dict[str, Any], alive: int) -> NoReturn:
    _call("prctl", _PR_SET_PDEATHSIG, signal.SIGKILL)
    _call("prctl", _PR_SET_DUMPABLE, 0)
    os.set_blocking(alive, False)
    try:
        os.read(alive, 1)
        os._exit(70)  # the process outside died before the call above
    except BlockingIOError:
        _enter_root(job)
    program = os.fork()
    if not program:
        _become_program(job)
    while True:
        ended, status = os.wait()
        if ended == program:
            os._exit(_code(status))


def _enter_root(job: dict[str, Any]) -> None:
    """Enters a new root with the system's and Python's folders and a few devices, read-only but for an empty /tmp."""
    _call("mount", b"none", b"/", None, _MS_REC | _MS_PRIVATE, None)
    options = f"size={job['disk_bytes']},nr_inodes=1024".encode()
    _call("mount", b"tmpfs", _ROOT.encode(), b"tmpfs", _MS_NOSUID | _MS_NODEV, options + b",mode=755")
    for path in (*_SYSTEM, *job["paths"]):
        _show(path)
    os.mkdir(f"{_ROOT}/dev")
    for device in _DEVICES:
        _write(f"{_ROOT}/dev/{device}", "")
        _bind(f"/dev/{device}")
    _write(f"{_ROOT}/start.py", job["start"])
    _write(f"{_ROOT}/program.py", job["program"])
    _write(f"{_ROOT}/stdin", job["stdin"])
    os.mkdir(_ROOT + _FOLDER)
    _call("mount", b"tmpfs", (_ROOT + _FOLDER).encode(), b"tmpfs", _MS_NOSUID | _MS_NODEV, options + b",mode=777")
    _make_read_only(_ROOT, 0)
    os.chdir(_ROOT)
    _call("pivot_root", b".", b".")
    _call("umount2", b".", _MNT_DETACH)
    os.chdir(_FOLDER)


def _show(path: str) -> None:
    """Makes a folder visible, read-only, with everything mounted in it."""
    place = _ROOT + path
    if os.path.exists(place) or not os.path.isdir(path):
        return
    os.makedirs(os.path.dirname(place), exist_ok=True)
    if os.path.islink(path):
        os.symlink(os.readlink(path), place)
        return
    os.mkdir(place)
    _bind(path)
    _make_read_only(place, _AT_RECURSIVE)


def _make_read_only(place: str, flags: int) -> None:
    """Makes a mount read-only."""
    size = ctypes.sizeof(_READ_ONLY)
    _call("syscall", _SYS_MOUNT_SETATTR, _AT_FDCWD, place.encode(), flags, ctypes.byref(_READ_ONLY), size)


def _bind(path: str) -> None:
    _call("mount", path.encode(), (_ROOT + path).encode(), None, _MS_BIND | _MS_REC, None)


def _become_program(job: dict[str, Any]) -> NoReturn:
    is_root = os.getuid() == 0
    os.dup2(os.open("/stdin", os.O_RDONLY), 0)
    os.nice(10)
    for name, limit in job["limits"].items():
        resource.setrlimit(getattr(resource, f"RLIMIT_{name}"), (limit, limit))
    # Without root, the two processes outside are in the same user namespace and count too.
    most = job["num_processes"] + (0 if is_root else 2)
    resource.setrlimit(resource.RLIMIT_NPROC, (most, most))
    if is_root:
        own = _FIRST_UID + job["parent"] % _NUM_UIDS
        os.setgroups([])
        os.setresgid(own, own, own)
        os.setresuid(own, own, own)
    _call("prctl", _PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    _install_filter(bytes.fromhex(job["filter"]))
    arguments = [job["python"], "-I", "-S", "-B", "-X", "utf8", "/start.py", *job["arguments"]]
    os.execve(job["python"], arguments, {})  # noqa: S606


def _install_filter(code: bytes) -> None:
    """Installs a filter of system calls that cannot be removed."""
    if not code:
        return
    place = ctypes.create_string_buffer(code, len(code))
    # struct sock_fprog, with its padding
    program = struct.pack("H6xP", len(code) // 8, ctypes.addressof(place))
    _call("prctl", _PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, ctypes.create_string_buffer(program, len(program)), 0, 0)


def _code(status: int) -> int:
    """Returns the exit code as shells report it, 128 plus the signal if one ended the process."""
    code = os.waitstatus_to_exitcode(status)
    return 128 - code if code < 0 else code


def _write(path: str, text: str) -> None:
    with open(path, "w", encoding="utf-8", newline="") as file:
        file.write(text)


def _call(name: str, *arguments: Any) -> None:
    if getattr(_LIBC, name)(*arguments) < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), name)


if __name__ == "__main__":
    main()
