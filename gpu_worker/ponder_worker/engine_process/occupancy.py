"""How busy the engines are: the room for more work, and the metrics."""

from __future__ import annotations

from dataclasses import asdict

from ponder_worker.engine import Engine
from ponder_worker.engine.latency import BUCKETS_S
from ponder_worker.engine_process.guesses import Guesses
from ponder_worker.engine_process.loading import Engines
from ponder_worker.engine_process.options import EngineOptions
from ponder_worker.protocol import EngineMetrics, Histogram

_SHARDS_AHEAD = 3


def room_tokens(generator: Engine, num_arrived: int, options: EngineOptions) -> int:
    """In estimated tokens of shards: three of the largest when idle, room for one when all sequences are taken.

    What keeps a step full is sequences; a job's tokens come to pass one after the other.
    """
    if generator.num_waiting and not generator.free_tokens:
        return 0
    most = 2 * options.max_sequences
    taken = generator.num_running + generator.num_waiting + num_arrived
    return max(0, most - taken) * _SHARDS_AHEAD * options.shard_tokens // most


def metrics(engines: Engines, guesses: Guesses) -> EngineMetrics:
    """Counters since the process began, those of the reward model after `reward_`; latencies are the generator's."""
    generator, reward = engines.generator, engines.reward
    numbers: dict[str, int | float] = asdict(generator.counters) | {
        "num_running": generator.num_running,
        "num_waiting": generator.num_waiting,
    }
    numbers |= generator.pages | asdict(guesses.tally)
    if reward is not None:
        numbers |= {f"reward_{name}": value for name, value in (asdict(reward.counters) | reward.pages).items()}
    latencies = {
        name: Histogram(tuple(counts), sum_s) for name, (counts, sum_s) in generator.latencies.as_numbers().items()
    }
    return EngineMetrics(numbers, latencies, BUCKETS_S)
