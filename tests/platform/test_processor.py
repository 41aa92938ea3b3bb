"""The choice of a fast dtype for a processor."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from ponder.processor import automatic_precision, bfloat16_instructions, num_cores


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        ("fpu avx512f avx512_bf16 amx_bf16 amx_tile", "AMX"),
        ("fpu avx512f avx512_bf16", "AVX512-BF16"),
        ("fpu avx2 avx512f", None),
    ],
)
def test_the_fastest_instructions_for_bfloat16_are_named(tmp_path: Path, flags: str, expected: str | None) -> None:
    cpuinfo = tmp_path / "cpuinfo"
    cpuinfo.write_text(f"processor\t: 0\nflags\t\t: {flags}\nbugs\t\t: spectre_v1\n")
    assert bfloat16_instructions(cpuinfo) == expected


def test_a_machine_that_says_nothing_of_its_processor_has_no_such_instructions(tmp_path: Path) -> None:
    assert bfloat16_instructions(tmp_path / "cpuinfo") is None
    (tmp_path / "cpuinfo").write_text("processor\t: 0\nFeatures\t: fp asimd\n")
    assert bfloat16_instructions(tmp_path / "cpuinfo") is None


@pytest.mark.parametrize(
    ("checkpoint", "instructions", "expected"),
    [
        ("bfloat16", "AMX", "bfloat16: the checkpoint's own; AMX makes it fast on this processor"),
        ("bfloat16", None, "float32: this processor has neither AMX nor AVX512-BF16 for the checkpoint's bfloat16"),
        ("float32", "AMX", "float32: the checkpoint's own"),
        ("float16", "AMX", "float32: the checkpoint's float16 is slow on a CPU, and float32 holds the same weights"),
    ],
)
def test_a_checkpoint_is_computed_in_its_own_dtype_where_that_is_fast(
    checkpoint: str, instructions: str | None, expected: str
) -> None:
    assert str(automatic_precision(checkpoint, instructions)) == expected


def test_hardware_threads_of_one_core_count_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0, 1, 4, 5})
    for cpu in range(8):
        place = tmp_path / f"cpu{cpu}" / "topology"
        place.mkdir(parents=True)
        (place / "thread_siblings_list").write_text(f"{cpu % 4},{cpu % 4 + 4}\n")
    assert num_cores(tmp_path) == 2
    assert num_cores(tmp_path / "nowhere") == 4
