"""How much longer twice the input takes."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable

MOST_GROWTH = 2.5
_NOISE_S = 0.005
_LEAST_PAIRS = 3
_MOST_PAIRS = 12


def growth(run: Callable[[int], object], size: int) -> float:
    """Returns the ratio of the processor times of `run(2 * size)` and `run(size)`, each the least of several runs.

    The two take turns, so that a machine that is slow for a while is slow for both, and without garbage collection,
    whose time depends on every object of the process. More pairs are timed while the ratio is above MOST_GROWTH: noise
    goes away, and quadratic time does not. What takes less than five milliseconds counts as that.
    """
    collects = gc.isenabled()
    gc.collect()
    gc.disable()
    once = twice = float("inf")
    try:
        for pair in range(_MOST_PAIRS):
            once, twice = min(once, _seconds(run, size)), min(twice, _seconds(run, 2 * size))
            if pair + 1 >= _LEAST_PAIRS and twice <= MOST_GROWTH * max(once, _NOISE_S):
                break
    finally:
        if collects:
            gc.enable()
    return twice / max(once, _NOISE_S)


def _seconds(run: Callable[[int], object], size: int) -> float:
    began = time.process_time()
    run(size)
    return time.process_time() - began
