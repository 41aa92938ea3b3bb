"""Accuracy, tokens and dollars of every strategy on held-out demo problems, by level, from jobs settled in Postgres.

    python benchmarks/search.py --out benchmarks/results/search.json
    python benchmarks/search_tables.py benchmarks/results/search.json               # the tables of the docs page
    python benchmarks/search_plot.py benchmarks/results/search.json docs/images     # needs matplotlib

It starts its own stack (Postgres, Redis, API, dispatcher, a worker for each of the demo's generators) in a temporary
PONDER_HOME and submits one batch through the API, with a line for each problem and setting, problem by problem. So all
settings run at the same time, and other load of the machine slows all of them alike. Every setting gets the same
problems and seeds. The report is made from what Postgres holds about the jobs. The last line of standard output is one
JSON object.
"""

import json
import os
import socket
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path

import click
from circumstances import circumstances, publish
from search_figures import Task, compare_stopping, figures, reached
from search_settings import STOPPING, Setting, settings
from sqlalchemy import text

from ponder.cli.commands.stack import plan
from ponder.client import Client
from ponder.domain.strategy import STRATEGY_NAMES
from ponder.embedded.home import Home
from ponder.embedded.launch import in_foreground
from ponder.embedded.plan import MODEL_NAME
from ponder.embedded.postgres import EmbeddedPostgres
from ponder.store.database import connect
from ponder_worker.demo.problems import Problem, held_out_problems

MAX_TOKENS = 320
ONE_IN = 5
"""Costly settings get one problem in so many."""
SENSELESS = {"refine": "the demo's problems have no verifier that says what is wrong"}
TASKS = text("""
    SELECT jobs.custom_id, jobs.verdict, usage.completion_tokens, usage.reward_tokens,
           coalesce((SELECT sum(nanodollars) FROM ledger_entries WHERE job_id = jobs.id), 0) AS nanodollars,
           results.error ->> 'code' AS error
    FROM jobs JOIN usage ON usage.job_id = jobs.id JOIN results ON results.job_id = jobs.id
    WHERE jobs.batch_id = :batch_id AND jobs.state IN ('completed', 'failed') ORDER BY jobs.line
""")


@dataclass(frozen=True, slots=True)
class Line:
    """One job: a problem, the `rank`-th of its level, under one setting."""

    setting: Setting
    problem: Problem
    rank: int

    @property
    def custom_id(self) -> str:
        return f"{self.setting.name}/{self.problem.level}/{self.rank}"

    def encode(self, seed: int) -> bytes:
        """The line of a job. A problem has the same seed under every strategy, so that the samples are the same."""
        body = {
            "model": self.setting.model,
            "messages": [{"role": "user", "content": self.problem.prompt}],
            "max_tokens": MAX_TOKENS,
            "seed": int.from_bytes(blake2b(f"{seed}/{self.problem.prompt}".encode(), digest_size=4).digest(), "big"),
            "metadata": {"level": str(self.problem.level)} if self.setting.tells_level else {},
            "ponder": {"reference": str(self.problem.answer), "strategy": self.setting.spec},
        }
        line = {"custom_id": self.custom_id, "method": "POST", "url": "/v1/chat/completions", "body": body}
        return json.dumps(line).encode() + b"\n"


@click.command()
@click.option("--problems", default=80, show_default=True, help="Held-out problems of each level.")
@click.option("--strategies", help="Names, separated by commas.  [default: all that the worker can run]")
@click.option(
    "--n", "sizes", default="1,4,16", show_default=True, help="Samples or paths, separated by commas, up to 64."
)
@click.option("--seed", default=7, show_default=True, help="The seed of the problems and the sampling.")
@click.option("--minutes", default=60.0, show_default=True, help="The time limit. Unfinished problems are left out.")
@click.option(
    "--apart",
    is_flag=True,
    help="Other problems for each setting, so that none finds the prompts of others in the cache.",
)
@click.option("--quick", is_flag=True, help="Few problems and small n: a check that it works.")
@click.option("--out", type=click.Path(path_type=Path), help="Also write the JSON here.")
def main(
    problems: int,
    strategies: str | None,
    sizes: str,
    seed: int,
    minutes: float,
    apart: bool,
    quick: bool,
    out: Path | None,
) -> None:
    if quick:
        problems, sizes = min(problems, 4), "1,4"
    names = strategies.split(",") if strategies else list(STRATEGY_NAMES)
    wanted = settings([name for name in names if name not in SENSELESS], [int(size) for size in sizes.split(",")])
    left_out = {name: why for name, why in SENSELESS.items() if name in names}
    began = time.monotonic()
    with stack() as (client, database):
        tried = run(client, database, lines(list({one.curve: one for one in wanted[::-1]}.values()), 1, seed), seed)
        left_out |= {one.curve: f"the worker fails: {tasks[0].error}" for one, tasks in tried.items() if tasks[0].error}
        chosen = [one for one in wanted if one.curve not in left_out]
        settled = run(client, database, lines(chosen, problems, seed, apart=apart), seed, minutes=minutes)
        tasks = complete(settled, problems)
    report = {
        **circumstances("every strategy on held-out demo problems, by level", "torch"),
        "seed": seed,
        "left_out": left_out,
        "settings": {one.name: one.document() | figures(tasks[one]) for one in tasks},
        "early_stopping": compare_stopping({one: tasks[one] for one in tasks if one.strategy in STOPPING}),
        "reached": {
            "small model": reached(
                {one: tasks[one] for one in tasks if one.model == MODEL_NAME and not one.is_cascade}
            ),
            "both models": reached(tasks),
        },
        "seconds": round(time.monotonic() - began),
    }
    publish(report, out)


def lines(chosen: Sequence[Setting], per_level: int, seed: int, *, apart: bool = False) -> list[Line]:
    """The jobs, problem by problem and level by level in turn, so that any first part is a fair sample.

    apart: each setting has problems of its own.
    """
    shared = held_out_problems(per_level, seed)
    problems = {
        one: held_out_problems(per_level, 1000 * (seed + 1) + place) if apart else shared
        for place, one in enumerate(chosen)
    }
    return [
        Line(setting, problems[setting][number], number % per_level)
        for number in sorted(range(len(shared)), key=lambda number: number % per_level)
        for setting in chosen
        if not setting.is_costly or number % per_level % ONE_IN == 0
    ]


def complete(tasks: dict[Setting, list[Task]], per_level: int) -> dict[Setting, list[Task]]:
    """The problems before the first one that is not settled under all of its settings.

    Later problems may be settled too, but more of them are easy, because hard ones take longer.
    """
    levels = {task.level for one in tasks for task in tasks[one]}
    settled = {one: {(task.level, task.number) for task in tasks[one]} for one in tasks}
    missing = [
        number
        for one in tasks
        for number in range(per_level)
        for level in levels
        if (not one.is_costly or number % ONE_IN == 0) and (level, number) not in settled[one]
    ]
    end = min(missing, default=per_level)
    return {one: [task for task in tasks[one] if task.number < end] for one in tasks}


@contextmanager
def stack() -> Iterator[tuple[Client, str]]:
    """A running stack on this machine: a client, and the URL of the database."""
    with tempfile.TemporaryDirectory(prefix="ponder-search-", ignore_cleanup_errors=True) as folder:
        os.environ["PONDER_HOME"] = str(Path(folder) / "home")
        home = Home(Path(folder) / "home")
        with in_foreground(
            home, plan(port=free_port(), with_large=True), lambda phase: click.echo(f"starting {phase} …", err=True)
        ):
            url, key = home.recorded_url(), home.key()
            assert url is not None
            assert key is not None
            with Client.of(url, key, patience_s=60) as client:
                yield client, EmbeddedPostgres(home.path).url


def run(
    client: Client, database: str, work: Sequence[Line], seed: int, *, minutes: float = 60.0
) -> dict[Setting, list[Task]]:
    """Submit one batch, wait until it is settled or the time is up, and read from Postgres what is settled."""
    file = client.upload(lambda: (line.encode(seed) for line in work), "search.jsonl")
    options = {"strategy": {"name": "direct"}, "verifier": {"name": "exact"}}
    batch_id = client.submit(file["id"], completion_window="14d", options=options)["id"]
    wait(client, batch_id, minutes)
    engine = connect(database)
    with engine.connect() as connection:
        rows = {row.custom_id: row for row in connection.execute(TASKS, {"batch_id": batch_id})}
    engine.dispose()
    tasks: dict[Setting, list[Task]] = {line.setting: [] for line in work}
    for line in work:
        if (row := rows.get(line.custom_id)) is not None:
            tasks[line.setting].append(
                Task(
                    level=str(line.problem.level),
                    number=line.rank,
                    passed=row.verdict == "passed",
                    tokens=int(row.completion_tokens),
                    reward_tokens=int(row.reward_tokens),
                    nanodollars=int(row.nanodollars),
                    error=row.error,
                )
            )
    return tasks


def wait(client: Client, batch_id: str, minutes: float) -> None:
    give_up_at, said_at = time.monotonic() + 60 * minutes, 0.0
    while (batch := client.batch(batch_id))["status"] in ("validating", "in_progress"):
        if time.monotonic() > give_up_at:
            client.cancel(batch_id)
            return
        if time.monotonic() - said_at > 20:
            said_at = time.monotonic()
            click.echo(f"{time.strftime('%H:%M:%S')} {batch['request_counts']}", err=True)
        time.sleep(3)
    assert batch["status"] == "completed", batch


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


if __name__ == "__main__":
    main()
