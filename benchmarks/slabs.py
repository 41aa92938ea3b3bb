"""Generator and reward model in one memory: a fixed split compared with slabs that they trade.

    python benchmarks/slabs.py --out benchmarks/results/slabs.json

No model computes. Real schedulers and pools plan steps for a runner that makes up tokens, so the counts are the same on
every machine. Both models have pages of the same size, 1,536 pages of 16 tokens in total. There are three loads:
`generator` draws many long samples and scores few, `reward` grows short steps and scores each one, and `swinging`
samples for all jobs first and then scores all of them, three times over. All steps have the same token budget, so fewer
steps mean more throughput.
"""

import random
from collections import deque
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import click
from circumstances import circumstances, publish

from ponder_worker.engine import SamplingParams, Sequence
from ponder_worker.engine.kv.page_pool import PagePool
from ponder_worker.engine.kv.slab_allocator import SlabAllocator
from ponder_worker.engine.scheduling.scheduler import Scheduler
from ponder_worker.engine.step_plan import StepPlan, StepResult

PAGE, PAGES, SLABS = 16, 1536, 32
MAX_TOKENS, MAX_SEQUENCES = 2048, 256
SPLITS = {"fixed, generator 2/3": 2 / 3, "fixed, halves": 1 / 2, "fixed, generator 1/3": 1 / 3, "traded": None}


@dataclass(frozen=True)
class Load:
    """A load of `num_jobs` prompts.

    Each of them draws `width` samples of up to `step_tokens`, in `rounds` rounds. A round continues one sample of the
    round before, and `scored` samples of each round are scored. together: a round begins when all jobs have finished
    the one before.
    """

    num_jobs: int
    width: int
    rounds: int
    step_tokens: int
    scored: int
    together: bool = False


LOADS = {
    "generator": Load(num_jobs=24, width=16, rounds=1, step_tokens=300, scored=2),
    "reward": Load(num_jobs=64, width=8, rounds=10, step_tokens=24, scored=8),
    "swinging": Load(num_jobs=48, width=8, rounds=3, step_tokens=120, scored=8, together=True),
}


class Machine:
    """The two schedulers, which take turns."""

    def __init__(self, split: float | None) -> None:
        self.both: list[Scheduler] = []
        budget = SlabAllocator(SLABS) if split is None else None
        for share in (split or 1.0, 1 - (split or 0.0)):
            pool = PagePool(int(PAGES * share), PAGE, slab_pages=PAGES // SLABS if budget else 0)
            self.both.append(Scheduler(pool, max_step_tokens=MAX_TOKENS, max_sequences=MAX_SEQUENCES, slabs=budget))
        self.num_steps = 0

    def step(self) -> Iterator[Sequence]:
        """Runs one step, and returns the sequences that finished."""
        self.num_steps += 1
        for scheduler in self.both:
            plan = scheduler.plan()
            outputs = scheduler.commit(plan, make_up(plan))
            yield from (output.sequence for output in outputs if output.finish_reason)

    @property
    def has_work(self) -> bool:
        return any(scheduler.running or scheduler.waiting for scheduler in self.both)


def make_up(plan: StepPlan) -> StepResult:
    tokens, values = [], []
    for chunk in plan.chunks:
        sequence = chunk.sequence
        if sequence.sampling is None:
            tokens.append(None)
            values.append([-1.0] * max(0, chunk.end - max(chunk.start, sequence.first_needed)))
        else:
            token = random.Random(sequence.sampling.seed * 4096 + chunk.end).randrange(32_000)
            tokens.append(token if chunk.samples else None)
            values.append([-1.0] if chunk.samples else [])
    return StepResult(tokens, values, [0.0] * len(tokens))


class Job:
    """One prompt, which grows round by round. `todo` receives its requests: (which scheduler, sequence)."""

    def __init__(self, number: int, load: Load) -> None:
        self.chance = random.Random(number)
        self.load = load
        self.number = number
        self.best = [self.chance.randrange(32_000) for _ in range(self.chance.randint(80, 240))]
        self.rounds = 0
        self.ended: list[Sequence] = []
        self.open = 0

    def begin(self) -> list[tuple[int, Sequence]]:
        """Request the samples of a round."""
        self.rounds += 1
        self.ended = []
        made = []
        for index in range(self.load.width):
            length = max(4, int(self.chance.triangular(0.2, 1.0, 0.5) * self.load.step_tokens))
            seed = (self.number * 64 + self.rounds) * 64 + index
            made.append((0, Sequence(list(self.best), len(self.best), SamplingParams(length, seed=seed))))
        self.open = len(made)
        return made

    def take(self, sequence: Sequence) -> list[tuple[int, Sequence]]:
        """Handles a finished sample or score, and requests what follows within the round."""
        self.open -= 1
        if sequence.sampling is None:
            return []
        self.ended.append(sequence)
        if len(self.ended) > self.load.scored:
            return []
        self.open += 1
        return [(1, Sequence(list(sequence.tokens), sequence.prompt_length, None))]


def run(load: Load, split: float | None) -> dict[str, Any]:
    machine = Machine(split)
    jobs = [Job(number, load) for number in range(load.num_jobs)]
    owner: dict[Sequence, Job] = {}
    arrivals = deque(jobs)
    shares: list[float] = []

    def add(job: Job, requests: list[tuple[int, Sequence]]) -> None:
        for which, sequence in requests:
            owner[sequence] = job
            machine.both[which].add(sequence)

    while arrivals or machine.has_work:
        while arrivals:
            job = arrivals.popleft()
            add(job, job.begin())
        for sequence in machine.step():
            job = owner.pop(sequence)
            add(job, job.take(sequence))
            if not job.open:
                job.best = job.chance.choice(job.ended).tokens
                if not load.together and job.rounds < load.rounds:
                    arrivals.append(job)
        if load.together and not machine.has_work and jobs[0].rounds < load.rounds:
            arrivals.extend(jobs)
        held = [scheduler.pool.num_held for scheduler in machine.both]
        shares.append(sum(held) / PAGES)
    counters = [scheduler.counters for scheduler in machine.both]
    return {
        "steps": machine.num_steps,
        "pages_held": round(sum(shares) / len(shares), 3),
        "generator": numbers(machine.both[0]),
        "reward": numbers(machine.both[1]),
        "computed_tokens": sum(counter.computed_tokens for counter in counters),
        "recomputed_tokens": sum(counter.recomputed_tokens for counter in counters),
    }


def numbers(scheduler: Scheduler) -> dict[str, int]:
    names = ("num_preemptions", "recomputed_tokens", "computed_tokens", "prefix_hits")
    counters = asdict(scheduler.counters)
    return {name: counters[name] for name in names} | {
        "evicted_pages": scheduler.pool.prefixes.num_evicted,
        "thrashed_pages": scheduler.pool.prefixes.num_thrashed,
    }


@click.command()
@click.option("--out", type=click.Path(path_type=Path), help="Also write the JSON here.")
def main(out: Path | None) -> None:
    """Count what a fixed split costs under three loads."""
    results = {}
    for name, load in LOADS.items():
        results[name] = {split: run(load, share) for split, share in SPLITS.items()}
        for split, found in results[name].items():
            click.echo(f"{name}, {split}: {found}", err=True)
    report = {
        **circumstances("fixed split and traded slabs under three loads; counts, nothing is computed", "numpy"),
        "pages": PAGES,
        "page_tokens": PAGE,
        "slabs": SLABS,
        "loads": {name: asdict(load) for name, load in LOADS.items()},
        "results": results,
    }
    publish(report, out)


if __name__ == "__main__":
    main()
