"""The order of the faults: a function of the seed alone."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random

from fault_injection.fault import Kind
from fault_injection.service_faults import SERVICE_FAULTS
from fault_injection.worker_faults import WORKER_FAULTS

KINDS = (*WORKER_FAULTS, *SERVICE_FAULTS)
_MEAN_PAUSE_S = 1.0


@dataclass(frozen=True, slots=True)
class Fault:
    """A scheduled fault. pause_s: the wait since the fault before it began. seed: for all that it leaves to chance."""

    number: int
    kind: Kind
    pause_s: float
    seed: int


def schedule(seed: int, num_faults: int) -> list[Fault]:
    """All kinds once in random order, then all of them again, and so on: none is rare."""
    rng = Random(f"faults/{seed}")
    kinds: list[Kind] = []
    while len(kinds) < num_faults:
        kinds += rng.sample(KINDS, len(KINDS))
    return [_fault(number, kind, Random(f"{seed}/{number}")) for number, kind in enumerate(kinds[:num_faults], start=1)]


def _fault(number: int, kind: Kind, rng: Random) -> Fault:
    return Fault(number, kind, min(rng.expovariate(1 / _MEAN_PAUSE_S), 4 * _MEAN_PAUSE_S), rng.getrandbits(32))
