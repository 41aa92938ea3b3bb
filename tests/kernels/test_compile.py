"""Kernels compile for the GPUs they are meant for, on a machine that has none, and none of them spills a register.

Compiling all of them for all GPUs takes ten minutes; benchmarks/kernel_resources.py does it and records what the
assembler made of them. Here every kernel is compiled with every dtype and head size for one GPU in turn and compared
with the record. Another test checks that the record is complete.
"""

import json
import sys
from collections.abc import Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import pytest

triton = pytest.importorskip("triton")
sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
import kernel_resources as resources  # noqa: E402

SHARED_BYTES = 163 << 10  # the most that a program may use on an A100
RECORDED = json.loads(resources.RECORD.read_text())
COVERING = [
    (name, resources.CAPABILITIES[number % len(resources.CAPABILITIES)])
    for number, name in enumerate(resources.covering())
]


@pytest.fixture(scope="module")
def compiled() -> Iterator[dict[str, Future[dict[str, int]]]]:
    """Compile two kernels at a time, in processes, because starting the assembler from threads was seen to fail."""
    with ProcessPoolExecutor(2, get_context("fork")) as pool:
        yield {name: pool.submit(resources.compile_build, name, capability) for name, capability in COVERING}


@pytest.mark.parametrize(("name", "capability"), COVERING)
def test_a_kernel_compiles_to_what_is_recorded(
    name: str, capability: int, compiled: dict[str, Future[dict[str, int]]]
) -> None:
    found = compiled[name].result()
    assert found["shared_bytes"] <= SHARED_BYTES
    if RECORDED["triton"] == triton.__version__:
        assert RECORDED["kernels"][name][f"sm_{capability}"] == found


def test_the_record_is_of_every_kernel_on_every_gpu_and_nothing_spills() -> None:
    assert list(RECORDED["kernels"]) == list(resources.EVERY)
    for name, row in RECORDED["kernels"].items():
        assert list(row) == [f"sm_{capability}" for capability in resources.CAPABILITIES]
        for found in row.values():
            assert found["shared_bytes"] <= SHARED_BYTES, name
            assert found["programs"] >= 1, name
            assert not found["stack_bytes"], (name, row)
