"""The capabilities of this machine's processor, and the dtype that suits a model on it."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

_BFLOAT16 = {"amx_bf16": "AMX", "avx512_bf16": "AVX512-BF16"}
"""The instructions that multiply bfloat16, by the kernel's flags, fastest first."""


@dataclass(frozen=True, slots=True)
class Precision:
    """A dtype by torch's name and the reason for it. Its text form has both."""

    dtype: str
    reason: str

    def __str__(self) -> str:
        return f"{self.dtype}: {self.reason}"


def bfloat16_instructions(cpuinfo: Path = Path("/proc/cpuinfo")) -> str | None:
    """Returns the name of the instructions that make bfloat16 fast on this processor, or None."""
    try:
        lines = cpuinfo.read_text().splitlines()
    except OSError:
        return None
    flags = next((line.partition(":")[2].split() for line in lines if line.startswith("flags")), [])
    return next((name for flag, name in _BFLOAT16.items() if flag in flags), None)


def automatic_precision(checkpoint: str, instructions: str | None) -> Precision:
    """Returns what `--dtype auto` means on a CPU.

    A dtype that the processor multiplies fast is kept; any other becomes float32, which holds the same weights.

    checkpoint: the dtype of a model's weights; instructions: `bfloat16_instructions` of this processor
    """
    if checkpoint == "bfloat16" and instructions:
        return Precision("bfloat16", f"the checkpoint's own; {instructions} makes it fast on this processor")
    if checkpoint == "float32":
        return Precision("float32", "the checkpoint's own")
    if checkpoint == "bfloat16":
        return Precision("float32", "this processor has neither AMX nor AVX512-BF16 for the checkpoint's bfloat16")
    return Precision("float32", f"the checkpoint's {checkpoint} is slow on a CPU, and float32 holds the same weights")


def num_cores(topology: Path = Path("/sys/devices/system/cpu")) -> int:
    """Counts the cores that this process may run on. Two hardware threads of one core count once."""
    usable = os.sched_getaffinity(0)
    try:
        siblings = {(topology / f"cpu{cpu}/topology/thread_siblings_list").read_text() for cpu in usable}
    except OSError:
        return len(usable)
    return len(siblings)
