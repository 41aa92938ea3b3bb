"""Time for which one tenant's expensive requests keep the API from answering others.

    python benchmarks/expensive_input.py --out benchmarks/results/expensive_input.json

Each body of the corpus in tests/support/expensive.py goes to a real `ponder serve`, a few at a time, while another
client asks for `/healthz` without pause. The longest answer is the time that everybody else would have waited. On a
busy machine most of it is due to the machine. The processor time that a body costs the serving process, in all its
threads, bounds how long it can block the event loop, however busy the machine is. The last line of standard output is
one JSON object.
"""

import os
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import click
import httpx2
from circumstances import circumstances, publish

from ponder.embedded.postgres import EmbeddedPostgres
from ponder.embedded.redis import EmbeddedRedis
from ponder.store.database import connect
from ponder.store.first_key import ensure_operator_key
from ponder.store.migrate import migrate

sys.path.append(str(Path(__file__).parent.parent / "tests" / "support"))
from expensive import EXPENSIVE, expensive

KEY = "pk-benchmark"
SIZES = (2_000, 60_000, 1_000_000)
"""Bytes: within the limits of a pattern, of a schema, and of a body."""


@click.command()
@click.option("--senders", default=2, show_default=True, help="Concurrent requests of the expensive tenant.")
@click.option("--give-up-s", default=60.0, show_default=True, help="Seconds after which a request is given up.")
@click.option("--out", type=click.Path(path_type=Path))
def main(senders: int, give_up_s: float, out: Path | None) -> None:
    with ExitStack() as stack:
        url, key, pid = stack.enter_context(_api())
        quiet = _longest_s(url, lambda: time.sleep(3))
        rows = [
            _measure(url, key, pid, name, num_bytes, senders, give_up_s) for name in EXPENSIVE for num_bytes in SIZES
        ]
    report = circumstances(
        "the longest answer to /healthz while another tenant sends expensive bodies", "fastapi", "jsonschema"
    )
    report |= {
        "senders": senders,
        "quiet_longest_ms": round(quiet * 1_000, 1),
        "longest_ms": max(row["longest_ms"] for row in rows),
        "processor_ms": max(row["processor_ms"] for row in rows),
        "bodies": rows,
    }
    publish(report, out)


def _measure(url: str, key: str, pid: int, name: str, num_bytes: int, senders: int, give_up_s: float) -> dict[str, Any]:
    body = expensive(name, num_bytes)
    statuses: list[int | str] = []

    def send() -> None:
        try:
            answer = httpx2.post(
                f"{url}/v1/batches",
                content=body,
                headers={"Authorization": f"Bearer {key}", "Content-Type": "application/json"},
                timeout=give_up_s,
            )
            statuses.append(answer.status_code)
        except httpx2.TimeoutException:
            statuses.append("timeout")

    def send_all() -> None:
        threads = [threading.Thread(target=send) for _ in range(senders)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    began = time.monotonic()
    longest = _longest_s(url, send_all)
    before = _processor_s(pid)
    send_all()
    processor_s = (_processor_s(pid) - before) / senders
    row = {
        "body": name,
        "bytes": len(body),
        "statuses": sorted(set(map(str, statuses))),
        "seconds": round(time.monotonic() - began, 2),
        "longest_ms": round(longest * 1_000, 1),
        "processor_ms": round(processor_s * 1_000, 1),
    }
    times = f"{row['longest_ms']:>10,.1f} ms {row['processor_ms']:>8,.1f} ms"
    click.echo(f"{times}  {len(body):>9,} bytes  {name}  {row['statuses']}", err=True)
    return row


def _processor_s(pid: int) -> float:
    """Processor time of all threads of a process, without its children."""
    tasks = Path(f"/proc/{pid}/task").iterdir()
    return sum(int((task / "schedstat").read_text().split()[0]) for task in tasks) / 1e9


def _longest_s(url: str, work: Any) -> float:
    """The longest answer to `/healthz` during `work`, as another process measures it."""
    with tempfile.NamedTemporaryFile() as stop_file:
        asking = subprocess.Popen(
            [sys.executable, "-c", _ASKING, url, stop_file.name], stdout=subprocess.PIPE, text=True
        )
        assert asking.stdout is not None
        assert asking.stdout.readline() == "asking\n"
        work()
        Path(stop_file.name).write_text("stop")
        said, _ = asking.communicate(timeout=600)
    return float(said)


_ASKING = """
import http.client, os, sys, time, urllib.parse
where = urllib.parse.urlsplit(sys.argv[1])
line = http.client.HTTPConnection(where.hostname, where.port, timeout=600)
longest, is_first = 0.0, True
while True:
    began = time.monotonic()
    line.request("GET", "/healthz"); line.getresponse().read()
    took = time.monotonic() - began
    if is_first:
        print("asking", flush=True); is_first = False
        continue
    longest = max(longest, took)
    if os.path.getsize(sys.argv[2]): break
    time.sleep(0.002)
print(longest)
"""


@contextmanager
def _api() -> Iterator[tuple[str, str, int]]:
    """A running `ponder serve`: its address, the key of a plain tenant, and the process."""
    with tempfile.TemporaryDirectory(prefix="ponder-benchmark-") as folder, ExitStack() as stack:
        postgres = stack.enter_context(EmbeddedPostgres(Path(folder)))
        redis = stack.enter_context(EmbeddedRedis(Path(folder)))
        engine = connect(postgres.url)
        migrate(engine)
        with engine.begin() as connection:
            ensure_operator_key(connection, KEY, tenant="home", name="benchmark")
        engine.dispose()
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        environment = os.environ | {
            "PONDER_HOME": folder,
            "PONDER_DATABASE_URL": postgres.url,
            "PONDER_REDIS_URL": redis.url,
            "PONDER_PORT": str(port),
            "PONDER_MAX_REQUESTS_PER_S": "1000",
        }
        service = subprocess.Popen([sys.executable, "-m", "ponder.cli", "serve"], env=environment)
        stack.callback(service.wait)
        stack.callback(service.kill)
        url = f"http://127.0.0.1:{port}"
        _wait_for(url)
        operator = {"Authorization": f"Bearer {KEY}"}
        httpx2.post(f"{url}/v1/tenants", json={"name": "expensive"}, headers=operator).raise_for_status()
        made = httpx2.post(f"{url}/v1/keys", json={"name": "theirs", "tenant": "expensive"}, headers=operator)
        yield url, made.raise_for_status().json()["key"], service.pid


def _wait_for(url: str) -> None:
    while True:
        try:
            httpx2.get(f"{url}/readyz").raise_for_status()
            return
        except httpx2.HTTPError:
            time.sleep(0.1)


if __name__ == "__main__":
    main()
