"""The C beside this file as a library: compiled at first use, kept in the user's cache."""

import ctypes
import hashlib
import logging
import os
import shutil
import subprocess
import tempfile
from ctypes import c_float, c_int64, c_void_p
from functools import cache
from pathlib import Path

import torch

_HERE = Path(__file__).parent
_HEADERS = ("vector.h", "tiles.h", "attention_tiles.h")
_SOURCES = ("attention.c", "layer.c", "draw.c", "product.c", "quantise.c")
_FLAGS = (
    *("-std=gnu11", "-O3", "-march=native", "-mprefer-vector-width=512", "-fopenmp", "-shared", "-fPIC"),
    *("-fno-math-errno", "-fno-trapping-math"),
)
_P, _N, _F = c_void_p, c_int64, c_float
_ARGUMENTS = {
    "plan": [_N, _P, _P, _N, _N, _N, _P, _P],
    "attend": [_P, _N, _P, _P, _P, _N, _P, _P, *[_N] * 6, _F, _N, _N, _P, _P, _P, _N],
    "add_and_normalise": [_P, _P, _P, _P, _N, _N, _F, _N],
    "rotate_and_write": [*[_P] * 8, _F, *[_N] * 6],
    "gate": [_P, _P, _N, _N, _N],
    "draw": [_P, _N, _N, _P, _P, _P, _N],
    "logprobs": [_P, _N, _N, _P, _P, _N],
    "has_products": [],
    "pack": [_P, _P, _N, _N],
    "multiply": [_P, _N, _P, _P, _P, _N, _N, _N],
    "quantise": [_P, _P, _P, _N, _N, _N],
    "rescale": [_P, _P, _P, _N, _N, _N],
}
_COUNTING = ("plan", "has_products")  # what gives a number back


@cache
def library(dtype: torch.dtype) -> ctypes.CDLL | None:
    """For tensors of this dtype; None where there is no C compiler that can make it."""
    if dtype not in (torch.float32, torch.bfloat16):
        return None
    try:
        loaded = ctypes.CDLL(str(_built(dtype)))
    except (OSError, subprocess.SubprocessError) as error:
        logging.getLogger(__name__).info("steps on the CPU are left to torch: %s", error)
        return None
    for name, arguments in _ARGUMENTS.items():
        function = getattr(loaded, name)
        function.argtypes, function.restype = arguments, c_int64 if name in _COUNTING else None
    return loaded


def _built(dtype: torch.dtype) -> Path:
    """The file of the library, made unless it is there. OSError or SubprocessError if it cannot be made."""
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if compiler is None:
        raise OSError("there is no C compiler")
    command = [compiler, *_FLAGS, f"-DBFLOAT16={int(dtype == torch.bfloat16)}"]
    said = subprocess.run([compiler, "--version"], capture_output=True, check=True, timeout=10).stdout
    digest = hashlib.sha256(repr(command).encode() + said + _processor())
    for name in (*_HEADERS, *_SOURCES):
        digest.update((_HERE / name).read_bytes())
    folder = _folder()
    target = folder / f"{digest.hexdigest()[:16]}.so"
    if not target.exists():
        made = folder / f"{target.stem}.{os.getpid()}"
        sources = [str(_HERE / name) for name in _SOURCES]
        subprocess.run([*command, *sources, "-o", str(made)], capture_output=True, check=True, timeout=120)
        made.replace(target)
    return target


def _folder() -> Path:
    """Where libraries are kept; one that others may write to is never trusted."""
    try:
        folder = Path.home() / ".cache" / "ponder"
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        state = folder.stat()
        if os.access(folder, os.W_OK) and state.st_uid == os.getuid() and not state.st_mode & 0o022:
            return folder
    except (OSError, RuntimeError):
        pass
    return Path(tempfile.mkdtemp(prefix="ponder-"))


def _processor() -> bytes:
    """What the compiler would make another library for."""
    try:
        lines = Path("/proc/cpuinfo").read_bytes().splitlines()
    except OSError:
        return b""
    return b"".join(line for line in lines[:40] if line.startswith((b"flags", b"Features", b"model name")))
