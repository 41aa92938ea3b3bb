"""Recognises GPUs by the names that machines have in price books."""

from __future__ import annotations

import pytest

from ponder.fleet.sizing.gpu import GPUS, Gpu, recognise


@pytest.mark.parametrize("name", GPUS)
def test_every_gpu_is_recognised_by_its_own_name(name: str) -> None:
    assert recognise(name) == GPUS[name]


@pytest.mark.parametrize(
    ("machine", "gpu"),
    [
        ("aws-p4d.24xlarge", "a100-40"),
        ("aws-p4de.24xlarge", "a100-80"),
        ("aws-p3.2xlarge", "v100-16"),
        ("aws-p3dn.24xlarge", "v100-32"),
        ("aws-p5.48xlarge", "h100"),
        ("aws-p5en.48xlarge", "h200"),
        ("p6-b200.48xlarge", "b200"),
        ("aws-g4dn.xlarge", "t4"),
        ("aws-g5.12xlarge", "a10g"),
        ("aws-g6.xlarge", "l4"),
        ("aws-g6e.xlarge", "l40s"),
        ("azure-nc24ads-a100-v4", "a100-80"),
        ("Standard_ND96isr_H100_v5", "h100"),
        ("azure-nc6s-v3", "v100-16"),
        ("gcp-a2-highgpu-1g", "a100-40"),
        ("gcp-a2-ultragpu-8g", "a100-80"),
        ("gcp-a3-ultragpu-8g", "h200"),
        ("gcp-g2-standard-4", "l4"),
        ("lambda-a100-80-gb-8", "a100-80"),
        ("lambda-a100-40-gb-8", "a100-40"),
        ("A100-SXM4-80GB", "a100-80"),
        ("h100-80gb", "h100"),
        ("vultr-v100-16-gb-1", "v100-16"),
        ("crusoe-mi300x-192-gb-8", "mi300x"),
    ],
)
def test_a_machine_is_recognised_by_its_gpu_or_its_instance_type(machine: str, gpu: str) -> None:
    assert recognise(machine) == GPUS[gpu]


@pytest.mark.parametrize("machine", ["cpu", "aws-p2.xlarge", "k80", "gb200-nvl72", "gh200", "l40", "rtx4090"])
def test_other_machines_are_not_taken_for_a_gpu_of_the_table(machine: str) -> None:
    assert recognise(machine) is None


@pytest.mark.parametrize("gpu", GPUS.values(), ids=GPUS)
def test_every_figure_has_a_source_and_its_unit(gpu: Gpu) -> None:
    assert gpu.source.startswith("https://")
    assert 10e9 <= gpu.memory_bytes <= 300e9
    assert 100 <= gpu.half_flops / gpu.bytes_per_s <= 450
    assert gpu.flops(8) == (gpu.fp8_flops or gpu.half_flops)
