"""The C code beside this file as a library, which is compiled at first use and kept in the user's cache."""

import atexit
import ctypes
import hashlib
import logging
import os
import platform
import shutil
import signal
import stat
import subprocess
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from ctypes import c_float, c_int64, c_void_p
from functools import cache
from pathlib import Path

import torch

_HERE = Path(__file__).parent
_HEADERS = ("vector.h", "tiles.h", "thread_pool.h", "attention.h")
_SOURCES = (
    *("attention_plan.c", "attention_vectors.c", "attention_tiles.c", "attention_decode.c", "attention_prefill.c"),
    *("thread_pool.c", "layer.c", "draw.c", "product.c", "quantise.c"),
)
_P, _N, _F = c_void_p, c_int64, c_float
_ARGUMENTS = {
    "plan_decode": [_N, _P, _P, _N, _N, _N, _P, _P],
    "attend_decode": [_P, _N, _P, _P, _P, _N, _P, _P, *[_N] * 6, _F, _N, _N, _P, _P, _P, _N],
    "attend_prefill": [_P, _N, *[_P] * 5, *[_N] * 6, _F, _N, _N, _P, _N],
    "add_and_normalise": [_P, _P, _P, _P, _N, _N, _F, _N],
    "rotate_and_write": [*[_P] * 8, _F, *[_N] * 6],
    "gate": [_P, _P, _N, _N, _N],
    "draw": [_P, _N, _N, _P, _P, _P, _N, _P, _P, _N],
    "exclude": [_P, _N, _N, _N, _P, _N, _P, _N],
    "logprobs": [_P, _N, _N, _P, _P, _N],
    "has_tiles": [],
    "has_products": [],
    "pack": [_P, _P, _N, _N],
    "multiply": [_P, _N, _P, _P, _P, *[_N] * 5],
    "quantise": [_P, _P, _P, _N, _N, _N],
    "rescale": [_P, _P, _P, _N, _N, _N],
}
_RETURNING = ("plan_decode", "has_tiles", "has_products")  # functions that return a number
_FLAGS = (
    *("-std=gnu11", "-O3", "-march=native", "-pthread", "-shared", "-fPIC", "-w"),
    *("-fno-math-errno", "-fno-trapping-math"),
)
_LIMIT_S = 120.0  # ten times what a quiet machine takes
_REMEMBERED_S = 3600.0
"""A failure counts for an hour. It may have been the moment's: no time or no memory left by other programs."""
_LINES = 5  # of an error message that are quoted
_OTHERS = stat.S_IWGRP | stat.S_IWOTH


class CannotCompile(Exception):
    """There is no compiler, or it failed; the message says why."""


@cache
def library(dtype: torch.dtype) -> ctypes.CDLL | None:
    """The library for tensors of this dtype; None if there is no C compiler that can make it."""
    if dtype not in (torch.float32, torch.bfloat16):
        return None
    try:
        loaded = _kept(bfloat16=dtype == torch.bfloat16)
    except (OSError, CannotCompile) as error:
        logging.getLogger(__name__).warning(
            "steps on the CPU are left to torch, 2.5 to 3 times slower: install gcc 12 or newer. %s", error
        )
        return None
    for name, arguments in _ARGUMENTS.items():
        function = getattr(loaded, name)
        function.argtypes, function.restype = arguments, c_int64 if name in _RETURNING else None
    return loaded


def num_threads(busy: bool) -> int:
    """The number of threads to use. It is torch's, which may have set it only for an OpenMP of its own."""
    return torch.get_num_threads() if busy else 1


def _kept(bfloat16: bool) -> ctypes.CDLL:
    """Load the library from the cache, or compile it. What failed within the last hour is not tried again.

    Raises CannotCompile or OSError.
    """
    path, version = _compiler()
    command = [path, *_flags(), f"-DBFLOAT16={int(bfloat16)}"]
    place = cache_dir() / _digest(repr(command).encode() + version + _processor())
    failed = place.with_suffix(".failed")
    if is_ours(failed) and time.time() - failed.stat().st_mtime < _REMEMBERED_S:
        raise CannotCompile(f"{failed.read_text()}\n(remove {failed} to try again)")
    try:
        return _opened(place.with_suffix(".so"), [*command, *(str(_HERE / name) for name in _SOURCES)])
    except CannotCompile as error:
        with suppress(OSError):
            failed.write_text(str(error))
            failed.chmod(0o600)
        raise


def _opened(target: Path, command: list[str]) -> ctypes.CDLL:
    """Load the target, after compiling it if it is missing, broken or not ours."""
    if is_ours(target):
        with suppress(OSError):  # truncated by a full disk, or made on another system
            return ctypes.CDLL(str(target))
    _compile_to(target, command)
    try:
        return ctypes.CDLL(str(target))
    except OSError as error:
        raise CannotCompile(f"the library that {command[0]} made cannot be loaded: {error}") from error


def _flags() -> tuple[str, ...]:
    """The compiler's flags for this machine."""
    return (*_FLAGS, "-mprefer-vector-width=512") if platform.machine() in ("x86_64", "AMD64") else _FLAGS


def _compiler() -> tuple[str, bytes]:
    """The path of the compiler, and what it prints as its version. Raises CannotCompile if there is none."""
    path = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if path is None:
        raise CannotCompile("there is no C compiler")
    return path, _run([path, "--version"])


def _compile_to(target: Path, command: Sequence[str]) -> None:
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


def _digest(circumstances: bytes) -> str:
    digest = hashlib.sha256(circumstances)
    for name in (*_HEADERS, *_SOURCES):
        digest.update((_HERE / name).read_bytes())
    return digest.hexdigest()[:16]


def _processor() -> bytes:
    """A description of the processor, for which the code is compiled; the machine's name if there is none.

    Several machines may share a home.
    """
    try:
        lines = Path("/proc/cpuinfo").read_bytes().splitlines()
    except OSError:
        lines = []
    found = [line for line in lines[:40] if line.startswith((b"flags", b"Features", b"model name"))]
    return b"".join(found) or platform.node().encode()


@cache
def cache_dir() -> Path:
    """The folder `~/.cache/ponder`, if only the current user and root may write to it and to the folders above it.

    Write access to it allows code to run as the current user. Otherwise it is a temporary folder, removed at exit.
    """
    try:
        cached = Path.home() / ".cache"
        cached.mkdir(mode=0o700, parents=True, exist_ok=True)
        folder = cached / "ponder"
        folder.mkdir(mode=0o700, exist_ok=True)
        folder = folder.resolve(strict=True)
        refused = next((path for path in (folder, *folder.parents) if not _is_safe(path)), None)
        reason = f"others may write to {refused}"
        if refused is None and os.access(folder, os.W_OK):
            return folder
        if refused is None:
            reason = f"{folder} is read-only"
    except (OSError, RuntimeError) as error:
        reason = str(error)
    logging.getLogger(__name__).warning("compiled libraries are not kept for the next start: %s", reason)
    own = Path(tempfile.mkdtemp(prefix="ponder-"))
    atexit.register(shutil.rmtree, own, ignore_errors=True)
    return own


def is_ours(path: Path) -> bool:
    """Whether this is a file that only the current user can have written. A link is not."""
    try:
        state = path.lstat()
    except FileNotFoundError:
        return False
    return stat.S_ISREG(state.st_mode) and state.st_uid == os.getuid() and not state.st_mode & _OTHERS


def _is_safe(folder: Path) -> bool:
    state = folder.stat()
    return state.st_uid in (os.getuid(), 0) and not state.st_mode & _OTHERS
