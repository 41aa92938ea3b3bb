"""The jobs of thirty simulated hours: people who wait, and batches that are due in four hours or in a day."""

import csv
import json
import math
import random
import statistics
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from fleet_machines import Speed
from servegen import ARCHIVE, Client, Lengths, clients

from ponder.bench.arrivals import arrival_times
from ponder.bench.suite import Trace

HOUR_S = 3_600.0
DAY_S = 24 * HOUR_S
LENGTH_S = 30 * HOUR_S
INTERACTIVE_DUE_S = 600.0
INTERACTIVE_SHARE = 0.1
"""The share of all tokens. The rest is batches: half of it due in four hours, and half in a day."""
BATCHES = {4 * HOUR_S: 6, 24 * HOUR_S: 2}
"""The number of batches by the time in which they are due."""
SAMPLES = {"interactive": (1, 4), "batch": (8,)}
ESTIMATES = Path(__file__).parent / "results" / "estimate.json"
BUCKET_S = 600.0


@dataclass(frozen=True, slots=True)
class Job:
    """A prompt and the lengths of its samples, which only time tells. `estimated_tokens` is known before."""

    arrives_s: float
    due_s: float
    lane: str
    batch: str
    prompt_tokens: int
    lengths: tuple[int, ...]
    estimated_tokens: int

    @property
    def tokens(self) -> int:
        return self.prompt_tokens + sum(self.lengths)


@dataclass(frozen=True, slots=True)
class Load:
    """Jobs in the order of their arrival. `interactive_workers`: those that people keep busy, by the median."""

    jobs: tuple[Job, ...]
    interactive_workers: float


@dataclass(frozen=True, slots=True)
class Service:
    """A recorded service: when its requests came in a day, as parts of the day, and the lengths of its clients."""

    arrivals: tuple[float, ...]
    clients: tuple[Client, ...]


@dataclass(frozen=True, slots=True)
class Misjudgement:
    """The error of estimates of a batch, with the median and the 90th percentile that were measured."""

    median: float
    p90: float

    @classmethod
    def measured(cls) -> "Misjudgement":
        """Reads the error after a pilot of fifty jobs."""
        kinds = json.loads(ESTIMATES.read_text())["kinds"]
        pilot = kinds["servegen reasoning clients"]["pilot of 50"]
        return cls(pilot["median_error"], pilot["p90_error"])

    def factor(self, chance: random.Random) -> float:
        """Draws what an estimate is of the truth. The size of the error is Weibull, through both percentiles."""
        power = math.log(self.p90 / self.median) / math.log(math.log(10) / math.log(2))
        scale = self.median / math.log(2) ** power
        error = scale * (-math.log(1 - chance.random())) ** power
        return max(1 + chance.choice((-error, error)), 0.1)


def deepseek(folder: Path, chance: random.Random) -> Service:
    """Draws a day of ServeGen's reasoning clients, and keeps one request in twenty."""
    times = arrival_times(Trace(process="trace", path=ARCHIVE), 1_450_000, folder, chance)
    return Service(tuple(at / DAY_S for at in times[::20] if at < DAY_S), tuple(clients(folder / ARCHIVE)))


def azure(folder: Path, chance: random.Random) -> Service:
    """Reads Azure's hour of conversations, which is taken for a day."""
    path = folder / "AzureLLMInferenceTrace_conv_2023.csv"
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    times = arrival_times(Trace(process="trace", path=path.name), len(rows), folder, chance)
    prompts, answers = (Counter(int(row[name]) for row in rows) for name in ("ContextTokens", "GeneratedTokens"))
    return Service(tuple(at / times[-1] for at in times[:-1]), (Client(Lengths.of(prompts), Lengths.of(answers)),))


SERVICES = {"deepseek": deepseek, "azure": azure}


def draw_load(service: Service, busy_s: float, speed: Speed, misjudgement: Misjudgement, chance: random.Random) -> Load:
    """Draws jobs that keep workers of a speed busy for about so long together. All of them are due by the end."""
    jobs = [*_interactive(service, busy_s * INTERACTIVE_SHARE, speed, misjudgement, chance)]
    workers = _median_workers(jobs, speed)
    number = 1
    for due_in_s, num_batches in BATCHES.items():
        sizes = [chance.lognormvariate(0, 0.5) for _ in range(num_batches)]
        for index, size in enumerate(sizes):
            share = (1 - INTERACTIVE_SHARE) / len(BATCHES) * size / sum(sizes)
            at_s = (index + chance.random()) * (LENGTH_S - due_in_s) / num_batches
            jobs += _batch(number, at_s, due_in_s, service, busy_s * share, speed, misjudgement, chance)
            number += 1
    return Load(tuple(sorted(jobs, key=lambda job: job.arrives_s)), workers)


def _interactive(
    service: Service, busy_s: float, speed: Speed, misjudgement: Misjudgement, chance: random.Random
) -> Iterator[Job]:
    """Yields single jobs at the times of the service's requests, of which it takes a part at random."""
    drawn = [_lengths(service, chance, SAMPLES["interactive"]) for _ in range(2_000)]
    mean_s = statistics.fmean(speed.work_s(prompt, lengths) for prompt, lengths in drawn)
    moments = [day * DAY_S + part * DAY_S for day in range(2) for part in service.arrivals]
    moments = [at_s for at_s in moments if at_s < LENGTH_S - INTERACTIVE_DUE_S]
    share = busy_s / mean_s / len(moments)
    per_sample = statistics.fmean(length for _, lengths in drawn for length in lengths) * misjudgement.factor(chance)
    times = (at_s for at_s in moments for _ in range(int(share) + (chance.random() < share % 1)))
    for number, at_s in enumerate(times):
        prompt, lengths = _lengths(service, chance, SAMPLES["interactive"])
        estimated = prompt + round(per_sample * len(lengths))
        yield Job(at_s, at_s + INTERACTIVE_DUE_S, "interactive", f"job {number}", prompt, lengths, estimated)


def _batch(
    number: int, at_s: float, due_in_s: float, service: Service, busy_s: float, speed: Speed,
    misjudgement: Misjudgement, chance: random.Random,
) -> list[Job]:  # fmt: skip
    """Draws the jobs of a batch, all of one client."""
    one = Service(service.arrivals, (chance.choice(service.clients),))
    drawn, total_s = [], 0.0
    while total_s < busy_s:
        drawn.append(_lengths(one, chance, SAMPLES["batch"]))
        total_s += speed.work_s(*drawn[-1])
    mean = statistics.fmean(length for _, lengths in drawn for length in lengths) * misjudgement.factor(chance)
    return [
        Job(at_s, at_s + due_in_s, "batch", f"batch {number}", prompt, lengths, prompt + round(mean * len(lengths)))
        for prompt, lengths in drawn
    ]


def _lengths(service: Service, chance: random.Random, samples: Sequence[int]) -> tuple[int, tuple[int, ...]]:
    client = chance.choice(service.clients)
    (prompt,) = client.prompts.draw(chance, 1)
    return prompt, tuple(max(answer, 1) for answer in client.answers.draw(chance, chance.choice(samples)))


def _median_workers(jobs: Sequence[Job], speed: Speed) -> float:
    """Returns the median of the busy workers that jobs of ten minutes ask for, as the platform counts them."""
    buckets: dict[int, float] = {}
    for job in jobs:
        bucket = int(job.arrives_s / BUCKET_S)
        buckets[bucket] = buckets.get(bucket, 0.0) + speed.work_s(job.prompt_tokens, job.lengths)
    return statistics.median(buckets.get(bucket, 0.0) / BUCKET_S for bucket in range(round(LENGTH_S / BUCKET_S)))
