"""How busy the engines are: room for more shards, and metrics."""

from __future__ import annotations

from dataclasses import asdict

from ponder_worker.engine import Engine
from ponder_worker.engine.latency import BUCKETS_S
from ponder_worker.engine_process.engine_core import EngineCore
from ponder_worker.engine_process.loading.engine_options import EngineOptions
from ponder_worker.protocol import EngineMetrics, Histogram

_SHARDS_AHEAD = 3


def room_tokens(generator: Engine, num_arrived: int, options: EngineOptions) -> int:
    """Returns the room for shards, in estimated tokens: three of the largest if idle, one if all sequences are taken.

    Sequences keep a step full, rather than tokens: a job's tokens come one after the other.
    """
    if generator.num_waiting and not generator.free_tokens:
        return 0
    most = 2 * options.max_sequences
    taken = generator.num_running + generator.num_waiting + num_arrived
    return max(0, most - taken) * _SHARDS_AHEAD * options.shard_tokens // most


def metrics(core: EngineCore) -> EngineMetrics:
    """Returns counters since the process began and gauges. The reward model's have the prefix `reward_`.

    Latencies are the generator's.
    """
    generator, reward = core.engines.generator, core.engines.reward
    numbers: dict[str, int | float] = asdict(generator.counters) | {
        "num_running": generator.num_running,
        "num_waiting": generator.num_waiting,
    }
    numbers |= generator.pages | core.metrics()
    if reward is not None:
        numbers |= {f"reward_{name}": value for name, value in (asdict(reward.counters) | reward.pages).items()}
    latencies = {
        name: Histogram(tuple(counts), sum_s) for name, (counts, sum_s) in generator.latencies.as_numbers().items()
    }
    return EngineMetrics(numbers, latencies, BUCKETS_S)
