"""An hour of real spot interruptions, compressed, hits real workers: what does it cost, and is anything lost?

    python benchmarks/preemption.py --out benchmarks/results/preemption.json

`ponder up --autoscale` runs the demo's models on this machine. While a batch is solved, each machine that Bamboo's
trace takes away in the hour takes one worker: by SIGTERM, as a notice does, or by kill -9, as a machine without one
vanishes. The autoscaler starts others. Afterwards Postgres tells what was recomputed, lost or done twice, whether every
ledger equals its bill, and how long the jobs of a worker waited until another one went on with them. Leases and ticks
are shortened with the hour, less than it. Without the trace nothing is measured, and the report says so. The last line
of standard output is one JSON object.
"""

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

import click
from circumstances import circumstances, publish
from preemption_facts import Kill, count, facts
from sqlalchemy import Engine

from ponder.embedded.postgres import EmbeddedPostgres
from ponder.store.database import connect
from ponder_worker.demo.problems import held_out_problems

sys.path.append(str(Path(__file__).parent.parent / "tests" / "support"))
from process_tree import children, command_of

TRACE = Path(__file__).parents[2] / "shared" / "data" / "spot" / "bamboo" / "p3-trace.csv"
HOUR_MS = 3_600_000
SAMPLES = 32
STRATEGY = {"name": "best_of_n", "n": SAMPLES, "early_stopping": None}
LEASE_S, TICK_S, FLEET_INTERVAL_S = 6.0, 0.5, 0.5
_SETTLED_WITHIN_S = 1_800.0
_GONE_WITHIN_S = 120.0
_NUM_READY = "SELECT count(*) FROM incarnations WHERE state = 'ready' AND lease_until > clock_timestamp()"
_NUM_OPEN = "SELECT count(*) FROM batches WHERE state NOT IN ('completed', 'failed', 'expired', 'cancelled')"


@dataclass(slots=True)
class Stack:
    """`ponder up --autoscale` in a home of its own."""

    home: Path
    num_workers: int
    port: int = field(init=False)
    environment: dict[str, str] = field(init=False)

    def __post_init__(self) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        own = {name: value for name, value in os.environ.items() if not name.startswith("PONDER_")}
        self.environment = own | {
            "PONDER_HOME": str(self.home),
            "PONDER_PORT": str(self.port),
            "PONDER_LEASE_S": str(LEASE_S),
            "PONDER_TICK_S": str(TICK_S),
            "PONDER_FLEET_INTERVAL_S": str(FLEET_INTERVAL_S),
            "OMP_WAIT_POLICY": "PASSIVE",
        }

    def ponder(self, *arguments: str) -> str:
        """Returns what a command prints. Raises CalledProcessError."""
        program = [sys.executable, "-m", "ponder.cli", *arguments]
        return subprocess.run(program, stdout=subprocess.PIPE, text=True, env=self.environment, check=True).stdout

    @contextmanager
    def up(self) -> Iterator[Engine]:
        """Starts everything, and gives access to its Postgres."""
        number = str(self.num_workers)
        self.ponder("up", "--autoscale", "--min", number, "--max", number, "--threads", "1")
        engine = connect(EmbeddedPostgres(self.home).url)
        try:
            yield engine
        finally:
            engine.dispose()
            self.ponder("down")

    def workers(self) -> list[int]:
        """Returns the processes of workers, without those of their engines."""
        supervisor = int(json.loads(self.ponder("status", "--format", "json"))["pid"])
        return [pid for pid in children(supervisor) if "ponder.cli worker" in command_of(pid)]


@click.command()
@click.option("--trace", type=click.Path(path_type=Path), default=TRACE, show_default="../shared/data/…/p3-trace.csv")
@click.option("--hour", default=4, show_default=True, help="The hour of the trace, from 0.")
@click.option("--compress", default=10.0, show_default=True, help="How many times faster it passes.")
@click.option("--jobs", default=1_000, show_default=True)
@click.option("--workers", default=3, show_default=True)
@click.option("--noticed", default=0.5, show_default=True, help="The share of machines that go with a notice.")
@click.option("--seed", default=1, show_default=True, help="The seed of which workers are hit, and how.")
@click.option("--out", type=click.Path(path_type=Path), help="Also write the JSON here.")
def main(
    trace: Path, hour: int, compress: float, jobs: int, workers: int, noticed: float, seed: int, out: Path | None
) -> None:
    report = circumstances("an hour of spot interruptions, compressed, against real workers", "ponder", "torch")
    if not trace.is_file():
        click.echo(f"skipped: there is no trace {trace}", err=True)
        publish({**report, "skipped": "there is no trace"}, None)
        return
    removals = removals_of(trace.read_text(), hour)
    report |= {"trace": trace.name, "hour": hour, "compress": compress, "jobs": jobs, "workers": workers}
    report |= {"noticed": noticed, "seed": seed, "lease_s": LEASE_S, "tick_s": TICK_S}
    with tempfile.TemporaryDirectory(prefix="ponder-preemption-") as name:
        stack = Stack(Path(name), workers)
        with stack.up() as engine:
            _wait(lambda: _scalar(engine, _NUM_READY) >= workers, _GONE_WITHIN_S)
            batch = _submit(stack, Path(name), jobs)
            began = time.time()
            kills = replay(stack, [at / compress for at in removals], noticed, Random(seed))
            _wait(lambda: _scalar(engine, _NUM_OPEN) == 0, _SETTLED_WITHIN_S)
            report["took_s"] = round(time.time() - began, 1)
            with engine.begin() as connection:
                report |= facts(connection, batch, jobs, kills, began)
    publish(report, out)


def removals_of(trace: str, hour: int) -> list[float]:
    """Returns the seconds after the beginning of an hour at which Bamboo's trace takes a machine away."""
    rows = [line.split(",") for line in trace.splitlines() if line.strip()]
    removed = [int(ms) for ms, event, _ in rows if event == "remove"]
    return [(ms - hour * HOUR_MS) / 1000 for ms in removed if hour * HOUR_MS <= ms < (hour + 1) * HOUR_MS]


def replay(stack: Stack, times: Sequence[float], noticed: float, random: Random) -> list[Kill]:
    """Takes a worker at each time, counted from now in seconds. Where there is none at that moment, none is taken."""
    began = time.monotonic()
    kills: list[Kill] = []
    for at in times:
        time.sleep(max(0.0, began + at - time.monotonic()))
        alive = [pid for pid in stack.workers() if pid not in {kill.pid for kill in kills}]
        if not alive:
            continue
        kill = Kill(random.choice(sorted(alive)), random.random() < noticed, time.time())
        os.kill(kill.pid, signal.SIGTERM if kill.with_notice else signal.SIGKILL)
        kills.append(kill)
        click.echo(f"{at:6.1f} s  {'SIGTERM' if kill.with_notice else 'kill -9'} {kill.pid}", err=True)
    return kills


def _submit(stack: Stack, folder: Path, num_jobs: int) -> str:
    """Submits problems of levels 4 and 5, and returns the batch's id."""
    problems = [one for one in held_out_problems(-(-num_jobs // 2)) if one.level >= 4][:num_jobs]
    lines = [
        {
            "custom_id": f"job-{number}",
            "method": "POST",
            "url": "/v1/chat/completions",
            "body": {
                "model": "demo",
                "messages": [{"role": "user", "content": problem.prompt}],
                "max_tokens": 320,
                "ponder": {"verifier": {"name": "number"}, "reference": str(problem.answer), "strategy": STRATEGY},
            },
        }
        for number, problem in enumerate(problems)
    ]
    path = folder / "jobs.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return stack.ponder("submit", str(path)).strip()


def _wait(is_done: Callable[[], bool], within_s: float) -> None:
    give_up_at = time.monotonic() + within_s
    while not is_done():
        if time.monotonic() > give_up_at:
            raise TimeoutError(f"it was not done within {within_s:.0f} s")
        time.sleep(0.5)


def _scalar(engine: Engine, statement: str) -> int:
    with engine.connect() as connection:
        return count(connection, statement)


if __name__ == "__main__":
    main()
