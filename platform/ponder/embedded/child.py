"""Processes that never outlive the one that started them, not even after kill -9."""

from __future__ import annotations

import ctypes
import os
import pwd
import signal
import subprocess
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

_PR_SET_PDEATHSIG = 1


def spawn(
    arguments: Sequence[str | Path],
    *,
    log: Path,
    environment: Mapping[str, str] | None = None,
    user: str | None = None,
    on_parent_death: signal.Signals | None = signal.SIGTERM,
    talks: bool = False,
) -> subprocess.Popen[bytes]:
    """Starts a process in a session of its own (a Ctrl-C in the terminal reaches only us), output appended to `log`.

    Call it from a thread that lives as long as the child should: the kernel sends `on_parent_death` when that
    *thread* ends (None: it goes on alone). `user` is switched to before exec, for programs that refuse to run as
    root. One that `talks` has its stdout in a pipe to us, and only its stderr in the log.
    """
    with log.open("ab") as output:
        return subprocess.Popen(
            [str(argument) for argument in arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE if talks else output,
            stderr=output,
            env=dict(os.environ if environment is None else environment),
            start_new_session=True,
            # Everything it needs is loaded before the fork; it makes system calls only.
            preexec_fn=_prepare(user, on_parent_death, os.getpid()),  # noqa: PLW1509
        )


def _prepare(user: str | None, on_parent_death: signal.Signals | None, parent: int) -> Callable[[], None]:
    libc = ctypes.CDLL(None, use_errno=True)
    identity = pwd.getpwnam(user) if user else None

    def prepare() -> None:
        if identity is not None:
            os.setgroups([])
            os.setgid(identity.pw_gid)
            os.setuid(identity.pw_uid)
        if on_parent_death is None:
            return
        # After the switch of user, which would clear it.
        libc.prctl(_PR_SET_PDEATHSIG, on_parent_death)
        if os.getppid() != parent:
            os._exit(1)

    return prepare


def stop(process: subprocess.Popen[bytes], by: signal.Signals, *, timeout_s: float) -> None:
    """Asks with `by`, waits, then kills."""
    if process.poll() is not None:
        return
    process.send_signal(by)
    try:
        process.wait(timeout_s)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
