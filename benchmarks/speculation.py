"""Beam search with and without eager scores and with and without speculation, at several loads and widths.

    python benchmarks/speculation.py --out benchmarks/results/speculation.json

The demo models run on the loop of the engine process, without a database. The modes are:

    lockstep            generator and reward model take turns: no scores are pending while tokens are generated
    eager               while scores are pending, steps are filled with work of other jobs (as in a worker)
    …+guesses           the likeliest steps are always continued before it is decided which ones are kept
    eager+guesses_auto  the same, but only while the worker's own rule says that it pays (as in a worker)

Modes are timed in turn, so that a busy machine slows all of them, and figures are medians over rounds. Processor time
is given beside wall-clock time: with one thread on a busy machine, it comes near to the time on an idle one. The number
of steps does not depend on the load of the machine, except in the last mode. hit_rate is the share of the tokens of
guesses that were asked for later. The last line of standard output is one JSON object.
"""

import asyncio
import json
import os
import statistics
import time
from collections import deque
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import click
from circumstances import circumstances, publish

from ponder.domain.state import Lane
from ponder_worker import demo
from ponder_worker.demo.problems import Problem, held_out_problems
from ponder_worker.engine import Engine
from ponder_worker.engine_process.engine_core import EngineCore
from ponder_worker.engine_process.job import Job
from ponder_worker.engine_process.learned import Learned
from ponder_worker.engine_process.loading.engine_options import EngineOptions
from ponder_worker.engine_process.loading.engines import Engines, load
from ponder_worker.engine_process.parent_pipe import Questions
from ponder_worker.engine_process.speculative_work import SpeculativeWork
from ponder_worker.protocol import AdmittedJob, JobResult

WEIGHTS = Path(demo.__file__).parent / "weights"
BASELINE = "eager"


class LockStep(EngineCore):
    """The generator runs until no job needs tokens. Then the reward model scores, for all jobs together."""

    def _scores_are_due(self, generator: Engine, reward: Engine) -> bool:
        return not self._is_generating


class Never(SpeculativeWork):
    def pays(self, generator: Engine) -> bool:
        return False


class Always(SpeculativeWork):
    def pays(self, generator: Engine) -> bool:
        return generator.num_running + generator.num_waiting < generator.max_sequences


MODES: dict[str, tuple[type[EngineCore], type[SpeculativeWork]]] = {
    "lockstep": (LockStep, Never),
    "lockstep+guesses": (LockStep, Always),
    "eager": (EngineCore, Never),
    "eager+guesses": (EngineCore, Always),
    "eager+guesses_auto": (EngineCore, SpeculativeWork),
}


@dataclass(frozen=True, slots=True)
class Cell:
    """One load: the number of jobs at a time, each a beam search of n paths, of which n / width survive a round."""

    num_at_a_time: int
    n: int
    num_jobs: int


@dataclass(frozen=True, slots=True)
class Run:
    """The figures of one round of one mode."""

    wall_s: float
    cpu_s: float
    job_s: float
    steps: int
    step_tokens: int
    reward_steps: int
    generated_tokens: int
    hits: int
    misses: int
    speculated_tokens: int
    misguessed_tokens: int
    answers: tuple[str | None, ...]


@click.command()
@click.option("--loads", default="1,4,16,64", show_default=True, help="Jobs at a time.")
@click.option("--beams", default="4,16", show_default=True, help="Paths of a beam search.")
@click.option("--width", default=4, show_default=True)
@click.option("--level", default=3, show_default=True, help="The level of the held-out problems.")
@click.option("--rounds", default=3, show_default=True)
@click.option("--threads", default=1, show_default=True)
@click.option("--out", type=click.Path(path_type=Path), help="Also write the JSON here; cells of other loads stay.")
def main(loads: str, beams: str, width: int, level: int, rounds: int, threads: int, out: Path | None) -> None:
    """Measure beam search with the demo models."""
    engines = load(
        EngineOptions(str(WEIGHTS / "generator"), str(WEIGHTS / "reward"), device="cpu", num_threads=threads)
    )
    problems = [problem for problem in held_out_problems(64) if problem.level == level]
    results = [
        measure(engines, problems, Cell(load, n, max(load, 4)), width, rounds)
        for n in map(int, beams.split(","))
        for load in map(int, loads.split(","))
    ]
    run = circumstances(
        "beam search of the demo models, with and without eager scores and speculation", "torch", threads=threads
    )
    results = [result | {"rounds": rounds, "level": level, "command": run["command"]} for result in results]
    if out is not None and out.exists():
        results = merged(json.loads(out.read_text())["results"], results)
    report = {
        **run,
        "settings": {"width": width},
        "results": results,
    }
    publish(report, out)


def merged(old: list[dict[str, Any]], new: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The rows with new ones in place of old ones of the same cell."""
    cells = {(result["n"], result["num_at_a_time"]): result for result in (*old, *new)}
    return [cells[cell] for cell in sorted(cells)]


def measure(engines: Engines, problems: list[Problem], cell: Cell, width: int, rounds: int) -> dict[str, Any]:
    """Measures all modes. Each one keeps its engines for all rounds, with what they learnt. Round 0 is a warm-up."""
    cores: dict[str, EngineCore] = {}
    for mode, (kind, guesses) in MODES.items():
        cores[mode] = kind(engines, lambda: None)
        cores[mode].speculation = guesses(cores[mode]._book, cores[mode].step_time)
    runs: dict[str, list[Run]] = {mode: [] for mode in MODES}
    for number in range(rounds + 1):
        for mode in MODES if number % 2 else reversed(MODES):
            admitted = [
                _admitted(f"{mode}{number}", at, problems, cell.n, width)
                for at in range(cell.num_jobs if number else 4)
            ]
            made = play(cores[mode], admitted, cell.num_at_a_time)
            if number:
                runs[mode].append(made)
    result = asdict(cell) | {"modes": {mode: summary(runs[mode], runs[BASELINE]) for mode in MODES}}
    fit = cores["eager+guesses_auto"].step_time.fit()
    if fit is not None:
        result["step_ms"] = {"fixed": round(fit.fixed_s * 1e3, 3), "row": round(fit.row_s * 1e3, 3)}
    click.echo(json.dumps(result), err=True)
    return result


def _admitted(tenant: str, at: int, problems: list[Problem], n: int, width: int) -> AdmittedJob:
    """An admitted job. Every run is its own tenant, so that runs share no pages."""
    request = {
        "messages": [{"role": "user", "content": problems[at % len(problems)].prompt}],
        "sampling": {"temperature": 1.0, "seed": at, "stop": []},
        "strategy": {"name": "beam_search", "n": n, "width": width},
    }
    return AdmittedJob(at, tenant, tenant, Lane.BATCH, request)


def play(core: EngineCore, admitted: list[AdmittedJob], num_at_a_time: int) -> Run:
    """Runs the jobs as the engine process does, except that a job arrives when another one is done."""
    before, started, cpu = counters(core), time.perf_counter(), time.process_time()
    results, seconds = asyncio.run(live(core, admitted, num_at_a_time))
    wall, cpu = time.perf_counter() - started, time.process_time() - cpu
    numbers = {name: value - before[name] for name, value in counters(core).items()}
    answers = tuple(result.answer for result in sorted(results, key=lambda result: result.job_id))
    return Run(wall, cpu, statistics.mean(seconds), **numbers, answers=answers)


async def live(
    core: EngineCore, admitted: list[AdmittedJob], num_at_a_time: int
) -> tuple[list[JobResult], list[float]]:
    """Returns the results of the jobs, and how long each took."""
    waiting, open_jobs = deque(admitted), dict[int, tuple[Job, float]]()
    results: list[JobResult] = []
    seconds: list[float] = []

    def take(job: Job) -> None:
        seconds.append(time.perf_counter() - open_jobs.pop(job.id)[1])
        results.append(job.result())

    while waiting or open_jobs:
        while waiting and len(open_jobs) < num_at_a_time:
            job = Job(waiting.popleft(), core, Questions(lambda ask: None), Learned(), take, on_span=lambda span: None)
            open_jobs[job.id] = job, time.perf_counter()
            job.start()
        await asyncio.sleep(0)
        if core.has_work:
            core.step()
            for job, _ in list(open_jobs.values()):
                job.look()
    return results, seconds


def counters(core: EngineCore) -> dict[str, int]:
    generator, reward, stats = core.engines.generator.counters, core.engines.reward, core.speculation.stats
    assert reward is not None
    return {
        "steps": generator.num_steps,
        "step_tokens": generator.computed_tokens,
        "reward_steps": reward.counters.num_steps,
        "generated_tokens": generator.generated_tokens,
        "hits": stats.speculation_hits,
        "misses": stats.speculation_misses,
        "speculated_tokens": stats.speculated_tokens,
        "misguessed_tokens": stats.misguessed_tokens,
    }


def summary(runs: list[Run], baseline: list[Run]) -> dict[str, Any]:
    """The medians over rounds. Ratios are to the baseline's run of the same round."""

    def median(of: Callable[[Run], float]) -> float:
        return statistics.median(map(of, runs))

    pairs = list(zip(runs, baseline, strict=True))
    guesses = median(lambda run: run.hits + run.misses)
    speculated, wasted = median(lambda run: run.speculated_tokens), median(lambda run: run.misguessed_tokens)
    return {
        "wall_s": round(median(lambda run: run.wall_s), 3),
        "wall_ratio": round(statistics.median(one.wall_s / other.wall_s for one, other in pairs), 3),
        "cpu_ratio": round(statistics.median(one.cpu_s / other.cpu_s for one, other in pairs), 3),
        "job_s_ratio": round(statistics.median(one.job_s / other.job_s for one, other in pairs), 3),
        "steps": median(lambda run: run.steps),
        "steps_ratio": round(statistics.median(one.steps / other.steps for one, other in pairs), 3),
        "reward_steps": median(lambda run: run.reward_steps),
        "tokens_a_step": round(median(lambda run: run.step_tokens / run.steps), 2),
        "generated_tokens": median(lambda run: run.generated_tokens),
        "guesses": guesses,
        "hit_rate": round(speculated / (speculated + wasted), 3) if speculated + wasted else None,
        "speculated_tokens": speculated,
        "misguessed_tokens": wasted,
        "other_answers": sum(a != b for one, other in pairs for a, b in zip(one.answers, other.answers, strict=True)),
    }


if __name__ == "__main__":
    main()
