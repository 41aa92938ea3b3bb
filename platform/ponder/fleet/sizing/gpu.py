"""Facts about GPUs, from their vendors' data sheets, and how machines of the price book are recognised."""

from __future__ import annotations

import re
from dataclasses import dataclass

_GB = 10**9
_T = 1e12
_NVIDIA = "https://www.nvidia.com/en-us/data-center/"
_AMD = "https://www.amd.com/en/products/accelerators/instinct/mi300/"
_H100 = f"{_NVIDIA}h100/"
_V100 = "https://images.nvidia.com/content/technologies/volta/pdf/volta-v100-datasheet-update-us-1165301-r5.pdf"
_A100 = (
    "https://www.nvidia.com/content/dam/en-zz/Solutions/Data-Center/a100/pdf/nvidia-a100-datasheet-us-nvidia-"
    "1758950-r4-web.pdf"
)


@dataclass(frozen=True, slots=True)
class Gpu:
    """One GPU as its data sheet describes it.

    memory_bytes: decimal gigabytes, as data sheets print them. half_flops: dense bfloat16 a second, or float16 where a
    GPU has no bfloat16. fp8_flops: dense fp8 a second; None without fp8. Where a sheet states only figures with
    sparsity, these are half of them.
    """

    name: str
    memory_bytes: int
    bytes_per_s: float
    half_flops: float
    fp8_flops: float | None
    source: str

    def flops(self, weight_bits: int) -> float:
        """Returns the dense operations a second on weights of that size. Weights of 4 bits are computed in 16."""
        return self.fp8_flops if weight_bits == 8 and self.fp8_flops else self.half_flops


GPUS = {
    gpu.name: gpu
    for gpu in (
        # An eighth of a DGX B200 (1,440 GB, 72 PFLOPS of sparse fp8). Other sheets count the 192 GB of its stacks.
        Gpu("b200", 180 * _GB, 8.0 * _T, 2250 * _T, 4500 * _T, f"{_NVIDIA}dgx-b200/"),
        Gpu("h200", 141 * _GB, 4.8 * _T, 989.5 * _T, 1979 * _T, f"{_NVIDIA}h200/"),
        Gpu("h100", 80 * _GB, 3.35 * _T, 989.5 * _T, 1979 * _T, f"{_H100} (SXM)"),
        Gpu("h100-pcie", 80 * _GB, 2.0 * _T, 756.5 * _T, 1513 * _T, f"{_H100} (PCIe)"),
        Gpu("a100-80", 80 * _GB, 2.039 * _T, 312 * _T, None, f"{_A100} (SXM)"),
        Gpu("a100-40", 40 * _GB, 1.555 * _T, 312 * _T, None, f"{_A100} (SXM)"),
        Gpu("l40s", 48 * _GB, 0.864 * _T, 362.05 * _T, 733 * _T, f"{_NVIDIA}l40s/"),
        Gpu("l4", 24 * _GB, 0.3 * _T, 121 * _T, 242.5 * _T, f"{_NVIDIA}l4/"),
        Gpu("a10", 24 * _GB, 0.6 * _T, 125 * _T, None, f"{_NVIDIA}products/a10-gpu/"),
        Gpu("a10g", 24 * _GB, 0.6 * _T, 70 * _T, None, "https://aws.amazon.com/ec2/instance-types/g5/"),
        Gpu("v100-32", 32 * _GB, 0.9 * _T, 125 * _T, None, f"{_V100} (SXM2)"),
        Gpu("v100-16", 16 * _GB, 0.9 * _T, 125 * _T, None, f"{_V100} (SXM2)"),
        Gpu("t4", 16 * _GB, 0.32 * _T, 65 * _T, None, f"{_NVIDIA}tesla-t4/"),
        Gpu("mi300x", 192 * _GB, 5.3 * _T, 1307.4 * _T, 2614.9 * _T, f"{_AMD}mi300x.html"),
    )
}

# A GPU's own name, or an instance type of AWS (p5.48xlarge), Google (a3-highgpu-8g) or Azure (NC24ads_A100_v4). The
# first that is found counts. Where a name leaves the memory open, it is the smaller.
_PATTERNS = tuple(
    (name, re.compile(rf"(?<![a-z0-9])(?:{pattern})(?![a-z0-9])"))
    for name, pattern in (
        ("b200", r"b200|a4-highgpu"),
        ("h200", r"h200|p5en?\.\d*[a-z]+|a3-ultragpu"),
        ("h100-pcie", r"h100[-_. ]?pcie"),
        ("h100", r"h100|p5\.\d*[a-z]+|a3-(?:high|mega|edge)gpu"),
        ("a100-80", r"a100(?:[-_. ]\w+)*?[-_. ]?80(?:[-_. ]?gb)?|a100[-_]v4|p4de\.\d*[a-z]+|a2-ultragpu"),
        ("a100-40", r"a100(?:[-_. ]?40gb)?|p4d\.\d*[a-z]+|a2-(?:high|mega)gpu"),
        ("l40s", r"l40s|g6e\.\d*[a-z]+"),
        ("l4", r"l4|gr?6\.\d*[a-z]+|g2-standard"),
        ("a10g", r"a10g|g5\.\d*[a-z]+"),
        ("a10", r"a10"),
        ("v100-32", r"v100[-_. ]?32(?:[-_. ]?gb)?|p3dn\.\d*[a-z]+"),
        ("v100-16", r"v100(?:[-_. ]?16gb)?|p3\.\d*[a-z]+|nc\d+r?s[-_]v3"),
        ("t4", r"t4|g4dn\.\w+"),
        ("mi300x", r"mi300x"),
    )
)


def recognise(machine: str) -> Gpu | None:
    """Returns the GPU that the name of a machine of the price book means, or None."""
    name = machine.lower()
    return next((GPUS[gpu] for gpu, pattern in _PATTERNS if pattern.search(name)), None)
