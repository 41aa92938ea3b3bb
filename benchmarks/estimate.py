"""Do the intervals of `ponder estimate` hold the truth nine times in ten, and how far off is the estimate?

    python benchmarks/estimate.py --record --minutes 8          # once: real jobs, by level and strategy
    python benchmarks/estimate.py --traces ../shared/data/traces --out benchmarks/results/estimate.json

Batches are resampled from the lengths of real jobs: those of the demo's model by level and strategy, which `--record`
runs on a stack of its own and keeps in benchmarks/results/estimate_lengths.json, and those of a reasoning model's
clients in ServeGen's traces (Xiang et al. 2025, arXiv:2505.09999; skipped if they are not there). Some jobs of a batch,
drawn at random, are the pilot: all that is known. The estimate of the whole batch is compared with its true sum. The
last line of standard output is one JSON object.
"""

import json
import random
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
from circumstances import circumstances, publish
from search import MAX_TOKENS, Setting, lines, run, stack
from servegen import ARCHIVE, clients

from ponder.domain.forecast.experience import Experience, Observation
from ponder.domain.forecast.lengths import Group

LENGTHS = Path(__file__).parent / "results" / "estimate_lengths.json"
SETTINGS = (
    Setting("direct", 1),
    Setting("self_consistency", 8, "beta"),
    Setting("best_of_n", 4),
    Setting("beam_search", 4),
    Setting("adaptive", 8),
)
PILOTS = (0, 10, 50, 200)
SIZES = (200, 500, 2_000)
UNCAPPED = 10**6


@dataclass(frozen=True, slots=True)
class Job:
    """A job with the tokens that it generates, of at most `samples` times `cap`."""

    strategy: str
    level: str
    tokens: int
    samples: int = 1
    cap: int = UNCAPPED

    @property
    def key(self) -> tuple[str, str, str]:
        return ("model", self.strategy, self.level)

    def sums(self) -> dict[str, float]:
        is_cut = self.tokens >= 0.99 * self.samples * self.cap
        return Observation(max(self.tokens, 1) / self.samples, is_cut, self.tokens, 0, 0, None, None, 0.0).sums()


Draw = Callable[[random.Random, int], list[Job]]
"""Draws the jobs of a batch."""


@click.command()
@click.option("--record", is_flag=True, help="Run the demo's problems and keep the lengths of their jobs.")
@click.option("--problems", default=120, show_default=True, help="With --record: problems of each level.")
@click.option("--minutes", default=8.0, show_default=True, help="With --record: the time limit.")
@click.option("--traces", type=click.Path(path_type=Path), help="The folder of ServeGen's traces.")
@click.option("--batches", default=500, show_default=True, help="Batches of each kind and pilot.")
@click.option("--seed", default=7, show_default=True)
@click.option("--out", type=click.Path(path_type=Path), help="Also write the JSON here.")
def main(
    record: bool, problems: int, minutes: float, traces: Path | None, batches: int, seed: int, out: Path | None
) -> None:
    if record:
        keep(problems, minutes, seed)
        return
    kinds = demo(json.loads(LENGTHS.read_text())["lengths"])
    archive = None if traces is None else traces / ARCHIVE
    if archive is None or not archive.exists():
        click.echo(f"skipped: there is no {ARCHIVE} in --traces", err=True)
    else:
        kinds["servegen reasoning clients"] = of_clients(archive)
    report = {
        **circumstances("estimates of resampled batches from a pilot", "pydantic"),
        "seed": seed,
        "batches": batches,
        "sizes": SIZES,
        "kinds": {
            kind: {f"pilot of {pilot}": tried(draw, pilot, batches, seed) for pilot in PILOTS}
            for kind, draw in kinds.items()
        },
    }
    publish(report, out)


def keep(problems: int, minutes: float, seed: int) -> None:
    """Runs the demo's problems under every setting and writes the lengths of the settled jobs."""
    with stack() as (client, database):
        tasks = run(client, database, lines(SETTINGS, problems, seed), seed, minutes=minutes)
    lengths: dict[str, dict[str, list[int]]] = {}
    for setting, found in tasks.items():
        levels = lengths.setdefault(setting.name, {})
        for task in found:
            if task.error is None:
                levels.setdefault(task.level, []).append(task.tokens)
    what = "generated tokens of jobs of the demo's model, by setting and level"
    LENGTHS.write_text(
        json.dumps(circumstances(what, "torch") | {"max_tokens": MAX_TOKENS, "seed": seed, "lengths": lengths}) + "\n"
    )


def demo(lengths: dict[str, dict[str, list[int]]]) -> dict[str, Draw]:
    """Returns a kind for each setting, whose batches mix the levels alike, and one that mixes the settings too."""
    samples = {setting.name: _samples(setting) for setting in SETTINGS}

    def of(names: Sequence[str]) -> Draw:
        cells = [(name, level, found) for name in names for level, found in lengths[name].items() if found]

        def draw(chance: random.Random, size: int) -> list[Job]:
            return [
                Job(name, level, chance.choice(found), samples[name], MAX_TOKENS)
                for name, level, found in chance.choices(cells, k=size)
            ]

        return draw

    kinds = {f"demo, {name}": of([name]) for name in lengths}
    return kinds | {"demo, all settings": of(list(lengths))}


def _samples(setting: Setting) -> int:
    """Returns what `Cell.of` takes for the number of samples."""
    return (setting.n + 1) // 2 if setting.strategy == "adaptive" else setting.n


def of_clients(archive: Path) -> Draw:
    """Returns a kind whose batches are each of one client, drawn at random."""
    known = list(clients(archive))

    def draw(chance: random.Random, size: int) -> list[Job]:
        return [Job("direct", "", length) for length in chance.choice(known).answers.draw(chance, size)]

    return draw


def tried(draw: Draw, pilot: int, batches: int, seed: int) -> dict[str, Any]:
    """Estimates batches from pilots, and compares the estimates with the truth."""
    chance = random.Random(f"{seed}/{pilot}")
    num_inside, errors, widths = 0, [], []
    for _ in range(batches):
        jobs = draw(chance, chance.choice(SIZES))
        known: dict[tuple[str, str, str], dict[str, float]] = {}
        for job in chance.sample(jobs, pilot):
            sums = known.setdefault(job.key, {})
            for name, value in job.sums().items():
                sums[name] = sums.get(name, 0.0) + value
        rest = alike(jobs)
        total = Experience(known).lengths.total(rest)
        truth = sum(job.tokens for job in jobs)
        num_inside += total.low <= truth <= total.high
        errors.append(abs(total.mean / truth - 1))
        widths.append(total.high / total.low)
    return {
        "inside": num_inside / batches,
        "median_error": round(statistics.median(errors), 4),
        "p90_error": round(statistics.quantiles(errors, n=10)[-1], 4),
        "median_high_to_low": round(statistics.median(widths), 3),
    }


def alike(jobs: Sequence[Job]) -> list[Group]:
    counts: dict[tuple[Any, ...], int] = {}
    for job in jobs:
        group = (job.key, job.samples, job.cap)
        counts[group] = counts.get(group, 0) + 1
    return [Group(key, number, samples, cap) for (key, samples, cap), number in counts.items()]


if __name__ == "__main__":
    main()
