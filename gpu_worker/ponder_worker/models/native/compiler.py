"""The machine's C compiler."""

import os
import platform
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

_FLAGS = (
    *("-std=gnu11", "-O3", "-march=native", "-fopenmp", "-shared", "-fPIC", "-w"),
    *("-fno-math-errno", "-fno-trapping-math"),
)
_LIMIT_S = 120.0  # ten times what a quiet machine takes
_LINES = 5  # of an error message that are quoted


class CannotCompile(Exception):
    """There is no compiler, or it failed; the message says why."""


def flags() -> tuple[str, ...]:
    """The compiler's flags for this machine."""
    return (*_FLAGS, "-mprefer-vector-width=512") if platform.machine() in ("x86_64", "AMD64") else _FLAGS


def compiler() -> tuple[str, bytes]:
    """The path of the compiler, and what it prints as its version. Raises CannotCompile if there is none."""
    path = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if path is None:
        raise CannotCompile("there is no C compiler")
    return path, _run([path, "--version"])


def compile_to(target: Path, command: Sequence[str]) -> None:
    """Run the command with `-o`. The target appears complete or not at all, even if several processes make it.

    Raises CannotCompile or OSError.
    """
    handle, name = tempfile.mkstemp(dir=target.parent, prefix=target.stem)
    os.close(handle)
    made = Path(name)
    try:
        _run([*command, "-o", name])
        made.chmod(0o700)  # the linker leaves the mode to the umask
        made.replace(target)
    finally:
        made.unlink(missing_ok=True)


def _run(command: Sequence[str]) -> bytes:
    """Run a command and return what it prints. At the time limit it ends along with every process it started."""
    pipe = subprocess.PIPE
    with subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=pipe, stderr=pipe, start_new_session=True
    ) as process:
        try:
            printed, complaint = process.communicate(timeout=_LIMIT_S)
        except BaseException as error:
            os.killpg(process.pid, signal.SIGKILL)
            if isinstance(error, subprocess.TimeoutExpired):
                raise CannotCompile(f"{command[0]} was not done after {_LIMIT_S:g} s") from None
            raise
    if process.returncode:
        lines = complaint.decode(errors="replace").splitlines()[:_LINES]
        raise CannotCompile("\n".join([f"{command[0]} ended with {process.returncode}", *lines]))
    return printed
