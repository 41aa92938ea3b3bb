"""Memory and processor time of the API while pages of the console wait for changes.

    python benchmarks/console_streams.py --out benchmarks/results/console_streams.json

`ponder serve` runs as a process of its own, on an embedded Postgres. Every stream belongs to a page of a batch, and is
held open as a browser does. They are timed while nothing happens, while one batch changes every two seconds (as the
ticks of its workers make it), and while all of them do. The last line of standard output is one JSON object.
"""

import asyncio
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import click
import httpx2
from circumstances import circumstances, publish
from sqlalchemy import Engine, text

from ponder.embedded.postgres import EmbeddedPostgres
from ponder.store.database import connect
from ponder.store.first_key import ensure_operator_key
from ponder.store.migrate import migrate

KEY = "pk-operator"
_CHANGE_S = 2.0
_TICKS_PER_S = os.sysconf("SC_CLK_TCK")


@click.command()
@click.option("--streams", default=200, show_default=True)
@click.option("--seconds", default=30, show_default=True, help="Length of each measurement.")
@click.option("--out", type=click.Path(path_type=Path), help="Also write the JSON here.")
def main(streams: int, seconds: int, out: Path | None) -> None:
    with tempfile.TemporaryDirectory() as name, EmbeddedPostgres(Path(name)) as postgres:
        engine = connect(postgres.url)
        migrate(engine)
        batches = make_batches(engine, streams)
        with serving(postgres.url, Path(name)) as (url, pid):
            result = asyncio.run(measure(engine, url, pid, batches, seconds))
        engine.dispose()
    what = f"{streams} pages of the console that wait for changes"
    publish(circumstances(what, "fastapi", "uvicorn", "pg8000") | {"streams": streams} | result, out)


def make_batches(engine: Engine, num: int) -> list[str]:
    """Makes open batches without jobs, which are enough for a page to watch."""
    ids = [f"batch_{number:024x}" for number in range(num)]
    with engine.begin() as connection:
        ensure_operator_key(connection, KEY, tenant="home", name="benchmark")
        connection.execute(
            text(
                """
                WITH file AS (
                    INSERT INTO files (id, tenant_id, filename, purpose, kind, bytes)
                    SELECT 'file-1', id, 'in.jsonl', 'batch', 'input', 0 FROM tenants RETURNING id, tenant_id
                )
                INSERT INTO batches (id, tenant_id, input_file_id, endpoint, completion_window, state, expires_at)
                SELECT batch.id, tenant_id, file.id, '/v1/chat/completions', '24h', 'in_progress',
                       clock_timestamp() + interval '1 day'
                FROM file CROSS JOIN unnest(CAST(:ids AS text[])) AS batch(id)
                """
            ),
            {"ids": ids},
        )
    return ids


@contextmanager
def serving(database_url: str, home: Path) -> Iterator[tuple[str, int]]:
    """Yields the address and the process of `ponder serve`. Its Redis is not needed."""
    settings = {
        "PONDER_DATABASE_URL": database_url,
        "PONDER_REDIS_URL": "redis://127.0.0.1:1",
        "PONDER_HOME": str(home),
    }
    port = "18765"
    process = subprocess.Popen([sys.executable, "-m", "ponder.cli", "serve", "--port", port], env=os.environ | settings)
    try:
        url = f"http://127.0.0.1:{port}"
        while not is_up(url):
            assert process.poll() is None, "the API ended"
            time.sleep(0.1)
        yield url, process.pid
    finally:
        process.terminate()
        process.wait(timeout=30)


def is_up(url: str) -> bool:
    try:
        return httpx2.get(f"{url}/healthz").status_code == 200
    except httpx2.TransportError:
        return False


async def measure(engine: Engine, url: str, pid: int, batches: list[str], seconds: int) -> dict[str, object]:
    limits = httpx2.Limits(max_connections=None)
    async with httpx2.AsyncClient(base_url=url, timeout=60, limits=limits) as browser:
        assert (await browser.post("/sign-in", data={"key": KEY})).status_code == 303
        for _ in range(20):  # what the first pages load stays loaded
            (await browser.get("/")).raise_for_status()
        before = resident_mb(pid)
        async with asyncio.TaskGroup() as group, streams(browser, batches, group) as heard:
            while heard() < len(batches):  # each page is told once, soon after its stream has begun
                await asyncio.sleep(0.5)
            phases = {
                "idle": await phase(engine, pid, heard, [], seconds),
                "one_changes": await phase(engine, pid, heard, batches[:1], seconds),
                "all_change": await phase(engine, pid, heard, batches, seconds),
            }
            added = resident_mb(pid) - before
    return {"memory_mb": round(added, 1), "resident_mb_before": round(before, 1), **phases}


@asynccontextmanager
async def streams(
    browser: httpx2.AsyncClient, batches: list[str], group: asyncio.TaskGroup
) -> AsyncIterator[Callable[[], int]]:
    """Holds a stream open for each batch. Yields a function that returns how many changes were heard in all."""
    num_heard = 0

    async def listen(batch: str) -> None:
        nonlocal num_heard
        async with browser.stream("GET", f"/events?of=batch&id={batch}") as answer:
            assert answer.status_code == 200, answer.status_code
            async for line in answer.aiter_lines():
                num_heard += line == "event: changed"

    tasks = [group.create_task(listen(batch)) for batch in batches]
    yield lambda: num_heard
    for task in tasks:
        task.cancel()


async def phase(
    engine: Engine, pid: int, heard: Callable[[], int], changing: list[str], seconds: int
) -> dict[str, float]:
    """Returns the share of one processor that the API took, and the changes that pages heard of."""
    before, processor_before, began = heard(), processor_s(pid), time.monotonic()
    while (left_s := began + seconds - time.monotonic()) > 0:
        if changing:
            await asyncio.to_thread(change, engine, changing)
        await asyncio.sleep(min(_CHANGE_S, left_s))
    share = (processor_s(pid) - processor_before) / (time.monotonic() - began)
    return {"processor_share": round(share, 4), "changes_heard": heard() - before}


def change(engine: Engine, batches: list[str]) -> None:
    with engine.begin() as connection:
        connection.execute(
            text("UPDATE batches SET paused_at = clock_timestamp() WHERE id = ANY(CAST(:ids AS text[]))"),
            {"ids": batches},
        )


def resident_mb(pid: int) -> float:
    fields = (Path("/proc") / str(pid) / "statm").read_text().split()
    return int(fields[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6


def processor_s(pid: int) -> float:
    fields = (Path("/proc") / str(pid) / "stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS_PER_S


if __name__ == "__main__":
    main()
