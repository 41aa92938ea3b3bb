"""Accuracy, tokens and dollars of every strategy on held-out demo problems, by level, from jobs settled in Postgres.

    python benchmarks/search.py --out benchmarks/results/search.json
    python benchmarks/search_plot.py benchmarks/results/search.json docs/images     # wants matplotlib

Starts a stack of its own (Postgres, Redis, API, dispatcher, one worker with the demo models) in a temporary PONDER_HOME,
submits one batch a setting through the API, all at once, so that whatever else the machine does slows all of them, and
reads what Postgres then says of their jobs. Every setting gets the same problems and seeds. The last line of standard
output is one JSON object.
"""

import json
import os
import platform
import socket
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from hashlib import blake2b
from pathlib import Path
from typing import Any

import click
import torch
from search_figures import Task, compare_adaptive, compare_stopping, figures
from sqlalchemy import text

from ponder.cli.stack import plan
from ponder.client import Client
from ponder.domain.strategy import STRATEGY_NAMES
from ponder.embedded.home import Home
from ponder.embedded.launch import in_foreground
from ponder.embedded.plan import MODEL_NAME
from ponder.embedded.postgres import EmbeddedPostgres
from ponder.store.engine import connect
from ponder_worker.demo.problems import Problem, held_out_problems

MAX_TOKENS = 320
LARGE = 64
SHARE_OF_LARGE = 4
"""Settings of 64 samples get one problem in so many: they would take most of the time."""
SENSELESS = {"refine": "the demo's problems have no verifier that says what is wrong"}
ONE_SAMPLE = ("direct", "budget_forcing")
STOPPING: dict[str, tuple[str | None, ...]] = {
    "self_consistency": (None, "beta", "window"),
    "best_of_n": (None, "beta", "window"),
}
TASKS = text("""
    SELECT jobs.line, jobs.level, jobs.state, jobs.verdict, usage.completion_tokens, usage.reward_tokens,
           coalesce((SELECT sum(nanodollars) FROM ledger_entries WHERE job_id = jobs.id), 0) AS nanodollars,
           results.error ->> 'code' AS error
    FROM jobs JOIN usage ON usage.job_id = jobs.id JOIN results ON results.job_id = jobs.id
    WHERE jobs.batch_id = :batch_id ORDER BY jobs.line
""")


@dataclass(frozen=True, slots=True)
class Setting:
    """One strategy with its parameters: a point on a curve."""

    strategy: str
    n: int
    early_stopping: str | None = None

    @property
    def name(self) -> str:
        return " ".join(filter(None, (self.strategy, f"n={self.n}", self.early_stopping)))

    @property
    def spec(self) -> dict[str, Any]:
        spec: dict[str, Any] = {"name": self.strategy}
        if self.strategy not in ONE_SAMPLE:
            spec["n"] = self.n
        if self.strategy in STOPPING:
            spec["early_stopping"] = self.early_stopping
        return spec


@click.command()
@click.option("--problems", default=60, show_default=True, help="Held-out problems of each level.")
@click.option("--strategies", help="Names, separated by commas.  [default: all that the worker can run]")
@click.option("--n", "sizes", default="1,4,16,64", show_default=True, help="Samples or paths, separated by commas.")
@click.option("--seed", default=7, show_default=True, help="Of the problems and of the sampling.")
@click.option("--quick", is_flag=True, help="Few problems, small n: whether it works, not what comes out.")
@click.option("--out", type=click.Path(path_type=Path), help="Also write the JSON here.")
def main(problems: int, strategies: str | None, sizes: str, seed: int, quick: bool, out: Path | None) -> None:
    if quick:
        problems, sizes = min(problems, 4), "1,4"
    names = strategies.split(",") if strategies else list(STRATEGY_NAMES)
    wanted = settings([name for name in names if name not in SENSELESS], [int(size) for size in sizes.split(",")])
    left_out = {name: why for name, why in SENSELESS.items() if name in names}
    began = time.monotonic()
    with stack() as (client, database):
        tried = run(client, database, [(one, held_out_problems(1, seed)[:1]) for one in first_of_each(wanted)], seed)
        left_out |= {
            one.strategy: f"the worker fails: {tasks[0].error}" for one, tasks in tried.items() if tasks[0].error
        }
        chosen = [(one, share(one, problems, seed)) for one in wanted if one.strategy not in left_out]
        tasks = run(client, database, chosen, seed)
    report = {
        "what": "every strategy on held-out demo problems, by level",
        "date": datetime.now(UTC).date().isoformat(),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}",
        "versions": {"python": platform.python_version(), "torch": torch.__version__},
        "command": " ".join(["python", "benchmarks/search.py", *sys.argv[1:]]),
        "problems_per_level": problems,
        "seed": seed,
        "left_out": left_out,
        "settings": {one.name: described(one) | figures(tasks[one]) for one in tasks},
        "early_stopping": compare_stopping({one: tasks[one] for one in tasks if one.strategy in STOPPING}),
        "adaptive": compare_adaptive({one: tasks[one] for one in tasks}),
        "seconds": round(time.monotonic() - began),
    }
    if out:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(json.dumps(report, indent=1) + "\n")
    click.echo(json.dumps(report))


def settings(names: Sequence[str], sizes: Sequence[int]) -> list[Setting]:
    """One sample is `direct`, whatever would choose among one; only it and its kin have no n."""
    made = []
    for name in names:
        if name in ONE_SAMPLE:
            made += [Setting(name, 1)] if 1 in sizes else []
            continue
        for n in sizes:
            if n > 1:
                made += [Setting(name, n, rule) for rule in STOPPING.get(name, (None,)) if not (rule and n == LARGE)]
    return made


def first_of_each(wanted: Sequence[Setting]) -> list[Setting]:
    return list({one.strategy: one for one in reversed(wanted)}.values())


def share(setting: Setting, per_level: int, seed: int) -> list[Problem]:
    """The first problems of each level: a smaller number are the first of a larger one."""
    return held_out_problems(max(1, per_level // SHARE_OF_LARGE) if setting.n == LARGE else per_level, seed)


def described(setting: Setting) -> dict[str, Any]:
    return {"strategy": setting.strategy, "n": setting.n, "early_stopping": setting.early_stopping}


@contextmanager
def stack() -> Iterator[tuple[Client, str]]:
    """-> (client, URL of the database) of everything on one machine, for the length of a `with`."""
    with tempfile.TemporaryDirectory(prefix="ponder-search-", ignore_cleanup_errors=True) as folder:
        os.environ["PONDER_HOME"] = str(Path(folder) / "home")
        home = Home(Path(folder) / "home")
        with in_foreground(home, plan(port=free_port()), lambda phase: click.echo(f"starting {phase} …", err=True)):
            url, key = home.recorded_url(), home.key()
            assert url is not None
            assert key is not None
            with Client.of(url, key, patience_s=60) as client:
                yield client, EmbeddedPostgres(home.path).url


def run(
    client: Client, database: str, work: Sequence[tuple[Setting, list[Problem]]], seed: int
) -> dict[Setting, list[Task]]:
    """Submits everything, waits until it is settled, and reads it from Postgres."""
    batches = {}
    for setting, problems in work:
        file = client.upload(partial(lines, problems, seed), f"{setting.name}.jsonl")
        options = {"strategy": setting.spec, "verifier": {"name": "exact"}}
        batches[setting] = client.submit(file["id"], completion_window="14d", options=options)["id"]
    wait(client, batches)
    engine = connect(database)
    with engine.connect() as connection:
        rows = {one: connection.execute(TASKS, {"batch_id": batches[one]}).all() for one in batches}
    engine.dispose()
    return {
        one: [
            Task(
                row.level,
                row.line,
                row.verdict == "passed",
                int(row.completion_tokens),
                int(row.reward_tokens),
                int(row.nanodollars),
                row.error,
            )
            for row in rows[one]
        ]
        for one in batches
    }


def wait(client: Client, batches: dict[Setting, str]) -> None:
    left, said_at = dict(batches), 0.0
    while left:
        for setting, batch_id in list(left.items()):
            batch = client.batch(batch_id)
            if batch["status"] in ("completed", "failed", "expired", "cancelled"):
                assert batch["status"] == "completed", f"{setting.name}: {batch}"
                del left[setting]
        if time.monotonic() - said_at > 20:
            said_at = time.monotonic()
            click.echo(f"{len(batches) - len(left)} of {len(batches)} batches are settled", err=True)
        time.sleep(1)


def lines(problems: Sequence[Problem], seed: int) -> Iterator[bytes]:
    """The same problem has the same seed, whatever the strategy: their samples are the same ones."""
    for number, problem in enumerate(problems):
        body = {
            "model": MODEL_NAME,
            "messages": [{"role": "user", "content": problem.prompt}],
            "max_tokens": MAX_TOKENS,
            "seed": int.from_bytes(blake2b(f"{seed}/{problem.prompt}".encode(), digest_size=4).digest()),
            "metadata": {"level": str(problem.level), "kind": problem.kind},
            "ponder": {"reference": str(problem.answer)},
        }
        line = {"custom_id": str(number), "method": "POST", "url": "/v1/chat/completions", "body": body}
        yield json.dumps(line).encode() + b"\n"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


if __name__ == "__main__":
    main()
