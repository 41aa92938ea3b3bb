"""When the jobs of a cell arrive: drawn, or as a recorded service had them.

BurstGPT (https://github.com/HPMLL/BurstGPT): CSV with `Timestamp` in seconds. Azure
(https://github.com/Azure/AzurePublicDataset): CSV with `TIMESTAMP` as date and time. Mooncake
(https://github.com/kvcache-ai/Mooncake): JSON lines with `timestamp` in milliseconds. ServeGen
(https://github.com/alibaba/ServeGen): a folder or .tar.gz with one `…trace.csv` per client, whose lines are the start
of a window in seconds, and in it the rate, the coefficient of variation, and the distribution of the times between
arrivals. ServeGen is drawn from, window by window; the others are replayed.
"""

from __future__ import annotations

import csv
import json
import math
import tarfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from heapq import merge
from itertools import accumulate, islice
from pathlib import Path
from random import Random

from ponder.bench.suite import AtOnce, Gamma, Poisson, Trace
from ponder.errors import InvalidInput

_WINDOW_S = 600.0
_UNREADABLE = (ValueError, TypeError, KeyError, ArithmeticError, EOFError, OSError, tarfile.TarError, zlib.error)
"""Whatever reading a file of another format raises."""


@dataclass(frozen=True, slots=True)
class _Window:
    """Some minutes of one client of ServeGen."""

    start_s: float
    rate_per_s: float
    cv: float
    is_weibull: bool
    shape: float


def arrival_times(arrivals: AtOnce | Poisson | Gamma | Trace, num_jobs: int, folder: Path, rng: Random) -> list[float]:
    """Returns the seconds from the start at which each job arrives, in order. The first one arrives at 0.

    A trace that has fewer arrivals begins again. Raises InvalidInput for a trace that cannot be read.
    """
    match arrivals:
        case AtOnce():
            return [0.0] * num_jobs
        case Poisson():
            return _renewals(num_jobs, lambda: rng.expovariate(arrivals.rate_per_s))
        case Gamma():
            shape = 1 / arrivals.cv**2
            return _renewals(num_jobs, lambda: rng.gammavariate(shape, 1 / (shape * arrivals.rate_per_s)))
        case Trace():
            times = _read_trace(folder / arrivals.path, num_jobs, rng)
            return _stretched(_repeated(times, num_jobs), arrivals.rate_per_s)


def _renewals(num: int, gap: Callable[[], float]) -> list[float]:
    return list(accumulate((gap() for _ in range(num - 1)), initial=0.0)) if num else []


def _repeated(times: Sequence[float], num: int) -> list[float]:
    """Begins again a mean gap after the last arrival."""
    length = times[-1] + (times[-1] / (len(times) - 1) if len(times) > 1 else 1.0)
    return [times[index % len(times)] + index // len(times) * length for index in range(num)]


def _stretched(times: list[float], rate_per_s: float | None) -> list[float]:
    if rate_per_s is None or len(times) < 2 or not times[-1]:
        return times
    factor = (len(times) - 1) / rate_per_s / times[-1]
    return [time * factor for time in times]


def _read_trace(path: Path, num: int, rng: Random) -> list[float]:
    """Returns up to `num` arrivals in seconds after the first one. Raises InvalidInput for a file of another format."""
    if not path.exists():
        raise InvalidInput(f"there is no trace {path}", param="arrivals.path")
    try:
        is_serve_gen = path.is_dir() or path.name.endswith(".tar.gz")
        found = _serve_gen(path, rng) if is_serve_gen else _recorded(path)
        times = sorted(islice(found, num))
        if not all(map(math.isfinite, times)):
            raise ValueError("it has a moment that is no finite number")
    except _UNREADABLE as error:
        raise InvalidInput(
            f"{path} is not a trace of BurstGPT, Azure, Mooncake or ServeGen ({error})", param="arrivals.path"
        ) from None
    if not times:
        raise InvalidInput(f"{path} has no arrival", param="arrivals.path")
    return [time - times[0] for time in times]


def _recorded(path: Path) -> Iterator[float]:
    with path.open(newline="") as file:
        if path.suffix == ".jsonl":
            yield from (float(json.loads(line)["timestamp"]) / 1000 for line in file if line.strip())
            return
        rows = csv.DictReader(file)
        column = next((name for name in rows.fieldnames or () if name.lower() == "timestamp"), None)
        if column is None:
            raise ValueError("it has no column timestamp")
        read: Callable[[str], float] = _moment if column.isupper() else float
        yield from (read(row[column]) for row in rows)


def _moment(text: str) -> float:
    """Reads a date and time that may have more digits than microseconds."""
    whole, _, fraction = text.partition(".")
    return datetime.fromisoformat(f"{whole}+00:00").timestamp() + (float(f"0.{fraction}") if fraction else 0.0)


def _serve_gen(path: Path, rng: Random) -> Iterator[float]:
    """Merges the arrivals of all clients."""
    return merge(*(_drawn(client, rng) for client in list(_clients(path))))


def _clients(path: Path) -> Iterator[list[_Window]]:
    if path.is_dir():
        for file in sorted(path.rglob("*trace.csv")):
            yield _windows(file.read_text().splitlines())
        return
    with tarfile.open(path) as archive:
        for member in sorted(archive.getmembers(), key=lambda one: one.name):
            content = archive.extractfile(member) if member.name.endswith("trace.csv") else None
            if content is not None:
                yield _windows(content.read().decode().splitlines())


def _windows(lines: Iterable[str]) -> list[_Window]:
    rows = (line.split(",") for line in lines if line.strip())
    return [
        _Window(float(start), float(rate), float(cv), name == "Weibull", float(shape))
        for start, rate, cv, name, shape, *_ in rows
        if float(rate) > 0 and float(cv) > 0
    ]


def _drawn(windows: Iterable[_Window], rng: Random) -> Iterator[float]:
    """Draws the times of one client: a renewal process in each window, with the window's rate and variation."""
    for window in windows:
        at = window.start_s
        while (at := at + _gap(window, rng)) < window.start_s + _WINDOW_S:
            yield at


def _gap(window: _Window, rng: Random) -> float:
    mean = 1 / window.rate_per_s
    if window.is_weibull:
        return rng.weibullvariate(mean / math.gamma(1 + 1 / window.shape), window.shape)
    shape = 1 / window.cv**2
    return rng.gammavariate(shape, mean / shape)
