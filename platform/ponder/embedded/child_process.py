"""Starts processes that never outlive their parent, not even after kill -9."""

from __future__ import annotations

import ctypes
import os
import pwd
import signal
import subprocess
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

_PR_SET_PDEATHSIG, _PR_SET_KEEPCAPS, _PR_CAP_AMBIENT = 1, 8, 47
_PR_CAP_AMBIENT_RAISE = 2
_CAPABILITY_VERSION_3 = 0x20080522
_CAP_DAC_OVERRIDE, _CAP_DAC_READ_SEARCH = 1, 2


def spawn(
    arguments: Sequence[str | Path],
    *,
    log: Path,
    environment: Mapping[str, str] | None = None,
    user: str | None = None,
    passes_closed_folders: bool = False,
    on_parent_death: signal.Signals | None = signal.SIGTERM,
    talks: bool = False,
) -> subprocess.Popen[bytes]:
    """Starts a process in its own session (Ctrl-C in the terminal reaches only us), with output appended to `log`.

    Files that it writes, and its log, can be read only by this user.

    Call it from a thread that lives as long as the child should: the kernel sends `on_parent_death` when that *thread*
    ends, or with None lets the child go on. The process switches to `user` before exec, for programs that refuse to run
    as root; with `passes_closed_folders` it keeps root's right to pass them, and no other. With `talks` its stdout is a
    pipe to us, and only its stderr goes to the log.
    """
    with os.fdopen(os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), "ab") as output:
        os.fchmod(output.fileno(), 0o600)
        return subprocess.Popen(
            [str(argument) for argument in arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE if talks else output,
            stderr=output,
            env=dict(os.environ if environment is None else environment),
            start_new_session=True,
            umask=0o077,
            # It only makes system calls, because everything it needs is loaded before the fork.
            preexec_fn=_prepare(user, passes_closed_folders, on_parent_death, os.getpid()),  # noqa: PLW1509
        )


def _prepare(
    user: str | None, passes_closed_folders: bool, on_parent_death: signal.Signals | None, parent: int
) -> Callable[[], None]:
    libc = ctypes.CDLL(None, use_errno=True)
    identity = pwd.getpwnam(user) if user else None

    def prepare() -> None:
        if identity is not None:
            libc.prctl(_PR_SET_KEEPCAPS, int(passes_closed_folders))
            os.setgroups([])
            os.setgid(identity.pw_gid)
            os.setuid(identity.pw_uid)
            if passes_closed_folders:
                _keep_one_of(libc, _CAP_DAC_READ_SEARCH, _CAP_DAC_OVERRIDE)
        if on_parent_death is None:
            return
        # This follows the switch of user, which would clear it.
        libc.prctl(_PR_SET_PDEATHSIG, on_parent_death)
        if os.getppid() != parent:
            os._exit(1)

    return prepare


def _keep_one_of(libc: ctypes.CDLL, *capabilities: int) -> None:
    """Keeps the first of these capabilities that this process has, even after exec (capabilities(7), "ambient")."""
    header = (ctypes.c_uint32 * 2)(_CAPABILITY_VERSION_3, 0)
    for capability in capabilities:
        # The effective, permitted and inheritable sets, for the lower and the upper 32 capabilities.
        sets = (ctypes.c_uint32 * 6)(*[1 << capability] * 3, 0, 0, 0)
        if libc.capset(header, sets) == 0:
            libc.prctl(_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_RAISE, capability, 0, 0)
            return


def stop(process: subprocess.Popen[bytes], by: signal.Signals, *, timeout_s: float) -> None:
    """Sends `by`, waits, and then kills the process."""
    if process.poll() is not None:
        return
    process.send_signal(by)
    try:
        process.wait(timeout_s)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
