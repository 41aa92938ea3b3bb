"""Jobs per second that several workers cut into shards, claim, tick and settle in a real Postgres.

    python benchmarks/job_queue.py --out benchmarks/results/job_queue.json

Each job costs what it costs in production: a tick with its work and a delta of its tree, then a settlement with answer,
usage, tree and verdict, all of it booked. Afterwards the ledger is checked. The last line of standard output is one
JSON object.
"""

import itertools
import json
import statistics
import tempfile
import threading
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click
from circumstances import circumstances, publish
from sqlalchemy import Engine, text

from ponder.domain.state import IncarnationState, JobState, Verdict
from ponder.embedded.postgres import EmbeddedPostgres
from ponder.jobs.claim import claim
from ponder.jobs.dispatching.dispatch import dispatch
from ponder.jobs.dispatching.finish import finish
from ponder.jobs.incarnation import ready, register
from ponder.jobs.shard import add_portions
from ponder.jobs.tick import Settlement, TickReport, Usage, Work, tick
from ponder.ledger.book import check
from ponder.store.database import connect
from ponder.store.migrate import migrate

_SHARD_TOKENS = 256 * 100
_NODE = {"parent": 0, "ordinal": 0, "text": "12 * 7 = 84", "ids": list(range(64)), "state": "finished", "score": -0.25}


class Stopwatch:
    """Milliseconds of each kind of transaction, over all threads."""

    def __init__(self) -> None:
        self.laps: dict[str, list[float]] = defaultdict(list)

    @contextmanager
    def lap(self, name: str) -> Iterator[None]:
        begun = time.perf_counter()
        yield
        self.laps[name].append((time.perf_counter() - begun) * 1000)

    def summary(self) -> dict[str, dict[str, float]]:
        return {
            name: {
                "num": len(laps),
                "median_ms": round(statistics.median(laps), 2),
                "p95_ms": round(sorted(laps)[int(len(laps) * 0.95)], 2),
            }
            for name, laps in self.laps.items()
        }


def _submit(engine: Engine, num_jobs: int) -> None:
    with engine.begin() as connection:
        connection.execute(text("INSERT INTO tenants (id, name) VALUES ('t', 't')"))
        connection.execute(
            text(
                "INSERT INTO files (id, tenant_id, filename, purpose, kind, bytes)"
                " VALUES ('f', 't', 'f', 'batch', 'input', 0)"
            )
        )
        connection.execute(
            text("""
                INSERT INTO batches (id, tenant_id, input_file_id, endpoint, completion_window, state, expires_at)
                VALUES ('b', 't', 'f', '/v1/chat/completions', '24h', 'in_progress',
                        clock_timestamp() + interval '1 day')
            """)
        )
        request = {"messages": [{"role": "user", "content": "x" * 400}], "sampling": {}, "budget": {}, "n": 1}
        connection.execute(
            text("""
                INSERT INTO jobs (tenant_id, batch_id, line, custom_id, model, fingerprint, request, strategy,
                                  estimated_tokens)
                SELECT 't', 'b', line, 'l' || line, 'm', 'f', CAST(:request AS jsonb), 'direct', 100
                FROM generate_series(1, CAST(:num_jobs AS int)) AS line
            """),
            {"request": json.dumps(request), "num_jobs": num_jobs},
        )
        add_portions(connection, "b", {})


def _start(engine: Engine, number: int) -> str:
    name = f"inc_{number}"
    with engine.begin() as connection:
        register(
            connection, id=name, worker=name, host="h", pid=1, model="m", machine="h200", market="spot", lease_s=3600
        )
        ready(connection, name, fingerprint="f", context_length=1024, has_reward_model=False, room_tokens=1_000_000)
    return name


def _settlement(job_id: int) -> Settlement:
    tree = {"nodes": [_NODE] * 8, "candidates": [{"node": 7, "answer": "84", "score": -0.25}], "chosen": 0}
    choices = [{"text": "12 * 7 = 84\nAnswer: 84", "answer": "84", "finish_reason": "stop"}]
    usage = Usage(prompt_tokens=100, completion_tokens=512)
    return Settlement(job_id, JobState.COMPLETED, Verdict.PASSED, "84", "stop", choices, None, usage, tree)


def _work(engine: Engine, name: str, numbers: Iterator[int], shards: list[int], watch: Stopwatch) -> None:
    """Claim shards, tick each of them once, then settle it."""

    def send(**said: Any) -> None:
        number = next(numbers)
        report = TickReport(name, number, lease_s=3600, progressed=True, state=IncarnationState.READY, **said)
        with engine.begin() as connection:
            tick(connection, report)

    while shards:
        try:
            shard = shards.pop()
        except IndexError:  # another thread was faster
            return
        with watch.lap("claim"), engine.begin() as connection:
            claimed = claim(connection, shard, name)
        if claimed is None:
            continue
        jobs = [job.job_id for job in claimed.jobs]
        work = [Work(job, 1.0 + job % 7) for job in jobs]
        with watch.lap("tick_growing"):
            send(work=work, deltas={job: [{"nodes": [_NODE | {"node": 1}]}] for job in jobs})
        settlements = [_settlement(job) for job in jobs]
        with watch.lap("tick_settling"):
            send(work=work, settled=settlements)


def _measure(engine: Engine, num_jobs: int, num_workers: int) -> dict[str, Any]:
    _submit(engine, num_jobs)
    workers = {_start(engine, number): itertools.count(1) for number in range(num_workers)}
    watch = Stopwatch()
    shards: list[int] = []
    cut_s = 0.0
    begun = time.perf_counter()
    while True:
        with watch.lap("dispatch"), engine.begin() as connection:
            shards = [message.shard_id for message in dispatch(connection, shard_tokens=_SHARD_TOKENS)]
        cut_s += watch.laps["dispatch"][-1] / 1000
        if not shards:
            break
        threads = [threading.Thread(target=_work, args=(engine, *worker, shards, watch)) for worker in workers.items()]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    wall_s = time.perf_counter() - begun
    with engine.begin() as connection:
        assert finish(connection) == 1, "the batch did not complete"
        for name in workers:
            check(connection, name)
    return {"rows_a_second": round(num_jobs / wall_s), "wall_s": round(wall_s, 2), "dispatch_s": round(cut_s, 2),
            "transactions": watch.summary()}  # fmt: skip


@click.command()
@click.option("--jobs", default=25_600, show_default=True)
@click.option("--workers", default=2, show_default=True, help="Threads, each an incarnation.")
@click.option("--out", type=click.Path(path_type=Path), help="Also write the JSON here.")
def main(jobs: int, workers: int, out: Path | None) -> None:
    """Measure the queue in Postgres."""
    with tempfile.TemporaryDirectory() as home, EmbeddedPostgres(Path(home)) as server:
        engine = connect(server.url, pool_size=workers + 1)
        migrate(engine)
        with engine.connect() as connection:
            postgres = connection.execute(text("SHOW server_version")).scalar_one()
        figures = _measure(engine, jobs, workers)
        engine.dispose()
    result = {
        **circumstances(
            "jobs settled through the queue in Postgres", "pg8000", "sqlalchemy", versions={"postgres": postgres}
        ),
        "jobs": jobs,
        "workers": workers,
        **figures,
    }
    publish(result, out)


if __name__ == "__main__":
    main()
