"""Where sampling noise comes from: a node's seed depends on the job's seed and the node's address alone."""

from __future__ import annotations

_MASK = (1 << 64) - 1


def of_job(job_id: int, seed: int | None) -> int:
    """The seed that the request names, else one of the job's own; 64 bits."""
    return _mix(seed & _MASK) if seed is not None else _mix(_mix(job_id & _MASK) ^ 0x5851F42D4C957F2D)


def of_child(parent_seed: int, ordinal: int) -> int:
    """The seed of the child (parent, ordinal). An address is the chain of ordinals from the root."""
    return _mix(parent_seed ^ _mix(ordinal + 1))


def _mix(x: int) -> int:
    """splitmix64: https://prng.di.unimi.it/splitmix64.c"""
    x = (x + 0x9E3779B97F4A7C15) & _MASK
    x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & _MASK
    return x ^ (x >> 31)
