"""The machines of the simulated fleets: prices from a public list, and a speed."""

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Speed:
    """The speed of a worker that works on `slots` samples at a time. Each grows as fast as if it were alone.

    alone_factor: how many times as fast samples grow of a job that runs alone, and leaves slots free.
    boot_s: from the order of a machine until its worker has registered. loading_s: from then on until it is ready.
    """

    slots: int
    decode_tokens_per_s: float
    prefill_tokens_per_s: float
    boot_s: float = 60.0
    loading_s: float = 120.0
    alone_factor: float = 1.0

    def work_s(self, prompt_tokens: int, lengths: Sequence[int]) -> float:
        """Returns the seconds of a busy worker that a job takes, whose samples share the prompt."""
        return (prompt_tokens / self.prefill_tokens_per_s + sum(lengths) / self.decode_tokens_per_s) / self.slots


@dataclass(frozen=True, slots=True)
class Machine:
    """A kind of machine, and the time for which its cloud gives notice before it takes a spot machine away."""

    name: str
    nanodollars_per_hour: Mapping[str, int]
    speed: Speed
    notice_s: float


_AWS_NOTICE_S, _GCP_NOTICE_S = 120.0, 30.0
_KINDS = {
    "g4dn": ("AWS", "g4dn.xlarge", "T4", Speed(4, 20.0, 1_000.0), _AWS_NOTICE_S),
    "p3": ("AWS", "p3.2xlarge", "V100", Speed(4, 30.0, 2_000.0), _AWS_NOTICE_S),
    "a100": ("GCP", "a2-highgpu-1g", "A100", Speed(4, 40.0, 5_000.0), _GCP_NOTICE_S),
    "v100": ("GCP", "n1-highmem-8", "V100", Speed(4, 30.0, 2_000.0), _GCP_NOTICE_S),
    "p2": ("AWS", "p2.xlarge", "K80", Speed(4, 15.0, 600.0), _AWS_NOTICE_S),
    "dime": ("AWS", "p2.xlarge", "K80", Speed(4, 15.0, 600.0), _AWS_NOTICE_S),
    "spotserve": ("AWS", "g4dn.12xlarge", "T4", Speed(4, 40.0, 3_000.0), _AWS_NOTICE_S),
}
"""For each trace of spot machines: cloud, name and GPU in the list of prices, speed, and notice."""


def read_machines(prices: Path) -> dict[str, Machine]:
    """Returns the machine of each trace."""
    with prices.open(newline="") as file:
        rows = {(row["Cloud"], row["Name"], row["GPU Type"].split()[0]): row for row in csv.DictReader(file)}
    machines = {}
    for trace, (cloud, name, gpu, speed, notice_s) in _KINDS.items():
        row = rows[cloud, name, gpu]
        price = {"on_demand": _nanodollars(row["On-demand"]), "spot": _nanodollars(row["Spot"])}
        machines[trace] = Machine(f"{name} ({gpu})", price, speed, notice_s)
    return machines


def _nanodollars(dollars: str) -> int:
    return round(float(dollars) * 10**9)
