"""The C code beside this file as a library, which is compiled at first use and kept in the user's cache."""

import ctypes
import hashlib
import logging
import platform
from contextlib import suppress
from ctypes import c_float, c_int64, c_void_p
from functools import cache
from pathlib import Path

import torch

from ponder_worker.models.native.cache_dir import cache_dir, is_ours
from ponder_worker.models.native.compiler import CannotCompile, compile_to, compiler, flags

_HERE = Path(__file__).parent
_HEADERS = ("vector.h", "tiles.h", "attention.h")
_SOURCES = (
    *("attention_plan.c", "attention_vectors.c", "attention_tiles.c", "attention_decode.c", "attention_prefill.c"),
    *("layer.c", "draw.c", "product.c", "quantise.c"),
)
_P, _N, _F = c_void_p, c_int64, c_float
_ARGUMENTS = {
    "plan_decode": [_N, _P, _P, _N, _N, _N, _P, _P],
    "attend_decode": [_P, _N, _P, _P, _P, _N, _P, _P, *[_N] * 6, _F, _N, _N, _P, _P, _P, _N],
    "attend_prefill": [_P, _N, *[_P] * 5, *[_N] * 6, _F, _N, _N, _P, _N],
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
_RETURNING = ("plan_decode", "has_products")  # functions that return a number


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
    """Load the library from the cache, or compile it. What failed once is not tried again.

    Raises CannotCompile or OSError.
    """
    path, version = compiler()
    command = [path, *flags(), f"-DBFLOAT16={int(bfloat16)}"]
    place = cache_dir() / _digest(repr(command).encode() + version + _processor())
    failed = place.with_suffix(".failed")
    if is_ours(failed):
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
    compile_to(target, command)
    try:
        return ctypes.CDLL(str(target))
    except OSError as error:
        raise CannotCompile(f"the library that {command[0]} made cannot be loaded: {error}") from error


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
