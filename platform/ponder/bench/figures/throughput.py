"""The service while a cell ran: its throughput, and the load of the workers over time."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean, pstdev

from ponder.bench.figures.interval_estimate import mean, quantile
from ponder.bench.job_record import JobRecord
from ponder.bench.suite import Part
from ponder.wire import Json

_MOST_POINTS = 300


class Point(Part):
    """A moment of one worker, in seconds since the cell began. `tokens_per_s`: generated in the time up to it."""

    at_s: float
    kv_usage: float
    num_running: int
    num_waiting: int
    tokens_per_s: float


class Service(Part):
    """Figures of the time from the first submission to the last settlement.

    Those of the keys and values are shares of the generator's pages: their mean, 99th percentile and most, the mean
    change from one sample to the next (`kv_swing`), and the largest fall between two (`kv_fall`). `kv_variation` is the
    standard deviation divided by the mean. `batch_fill` is tokens a step. What is None was not sampled, or not for this
    key to see.
    """

    wall_s: float
    jobs_per_s: float
    output_tokens_per_s: float
    total_tokens_per_s: float
    num_samples: int = 0
    kv_mean: float | None = None
    kv_p99: float | None = None
    kv_most: float | None = None
    kv_swing: float | None = None
    kv_fall: float | None = None
    kv_variation: float | None = None
    running_mean: float | None = None
    batch_fill: float | None = None
    preemptions: int | None = None
    cache_hit_rate: float | None = None
    memory_bytes: int | None = None


def service_of(records: Sequence[JobRecord], samples: Sequence[Json]) -> Service:
    """Returns the figures of settled jobs, and of the samples of the workers that served them."""
    wall_s = max(one.settled_at for one in records) - min(one.submitted_at for one in records)
    output = sum(one.completion_tokens for one in records)
    total = output + sum(one.prompt_tokens for one in records)
    throughput = Service(
        wall_s=wall_s,
        jobs_per_s=len(records) / wall_s,
        output_tokens_per_s=output / wall_s,
        total_tokens_per_s=total / wall_s,
    )
    return throughput if not samples else throughput.model_copy(update=_load(samples))


def points_of(samples: Sequence[Json], began_at: float) -> tuple[Point, ...]:
    """Returns the series of a cell, thinned evenly if it is long."""
    step = -(-len(samples) // _MOST_POINTS) or 1
    return tuple(
        Point(
            at_s=round(one["at"] - began_at, 2),
            kv_usage=round(one["kv_usage"], 4),
            num_running=one["num_running"],
            num_waiting=one["num_waiting"],
            tokens_per_s=round(one["generated_tokens"] / one["seconds"], 1) if one["seconds"] else 0.0,
        )
        for one in samples[::step]
    )


def _load(samples: Sequence[Json]) -> Json:
    usage = sorted(one["kv_usage"] for one in samples)
    changes = _changes(samples)
    num_steps = sum(one["num_steps"] for one in samples)
    queries = sum(one["prefix_queries"] for one in samples)
    return {
        "num_samples": len(samples),
        "kv_mean": mean(usage),
        "kv_p99": quantile(usage, 0.99),
        "kv_most": usage[-1],
        "kv_swing": mean([abs(change) for change in changes]),
        "kv_fall": max(0.0, *(-change for change in changes)) if changes else None,
        "kv_variation": pstdev(usage) / fmean(usage) if usage[-1] else None,
        "running_mean": mean([one["num_running"] for one in samples]),
        "batch_fill": sum(one["computed_tokens"] for one in samples) / num_steps if num_steps else None,
        "preemptions": sum(one["num_preemptions"] for one in samples),
        "cache_hit_rate": sum(one["prefix_hits"] for one in samples) / queries if queries else None,
        "memory_bytes": max(one["memory_bytes"] for one in samples),
    }


def _changes(samples: Sequence[Json]) -> list[float]:
    """Returns the change of the pages held from each sample of a worker to its next one."""
    last: dict[str, float] = {}
    found: list[float] = []
    for one in samples:
        worker = one["incarnation_id"]
        if worker in last:
            found.append(one["kv_usage"] - last[worker])
        last[worker] = one["kv_usage"]
    return found
