"""Time to submit a batch, and the memory that the API needs for it.

    python benchmarks/submit.py --out benchmarks/results/submit.json

It runs real parts: an embedded Postgres and Redis, `ponder serve` and `ponder dispatcher` as processes of their own,
the official openai package as the client. A second upload, larger than any memory bound, measures the API alone. The
last line of standard output is one JSON object.
"""

import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import click
import httpx2
import openai
from circumstances import circumstances, publish
from sqlalchemy import text

from ponder.embedded.postgres import EmbeddedPostgres
from ponder.embedded.redis import EmbeddedRedis
from ponder.store.database import connect
from ponder.store.first_key import ensure_operator_key
from ponder.store.migrate import migrate

KEY = "pk-benchmark"
PROMPT = "Natalia sold clips to 48 of her friends in April, and then she sold half as many clips in May. " * 2


@click.command()
@click.option("--rows", default=100_000, show_default=True, help="Lines of the batch.")
@click.option("--upload-mb", default=200, show_default=True, help="Size of the second upload.")
@click.option("--out", type=click.Path(path_type=Path), help="Also write the JSON here.")
def main(rows: int, upload_mb: int, out: Path | None) -> None:
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        folder = Path(name)
        postgres = stack.enter_context(EmbeddedPostgres(folder / "home"))
        redis = stack.enter_context(EmbeddedRedis(folder / "home"))
        prepare(postgres.url)
        port = free_port()
        environment = os.environ | {
            "PONDER_HOME": str(folder / "home"),
            "PONDER_DATABASE_URL": postgres.url,
            "PONDER_REDIS_URL": redis.url,
            "PONDER_PORT": str(port),
        }
        api = stack.enter_context(service("serve", environment))
        dispatcher = stack.enter_context(service("dispatcher", environment))
        client = stack.enter_context(
            openai.OpenAI(base_url=f"http://127.0.0.1:{port}/v1", api_key=KEY, timeout=600, max_retries=0)
        )
        wait_until_ready(port)
        idle_mb = peak_mb(api)
        result = submission(client, write_rows(folder / "rows.jsonl", rows))
        after_submission_mb = peak_mb(api)
        result |= upload(client, write_megabytes(folder / "large.jsonl", upload_mb))
        result["api_peak_mb"] = {
            "idle": idle_mb,
            "after the batch": after_submission_mb,
            "after the large upload": peak_mb(api),
        }
        result["dispatcher_peak_mb"] = peak_mb(dispatcher)
    publish(described(result, rows, upload_mb), out)


def prepare(url: str) -> None:
    engine = connect(url)
    migrate(engine)
    with engine.begin() as connection:
        ensure_operator_key(connection, KEY, tenant="benchmark", name="benchmark")
        connection.execute(
            text(
                "INSERT INTO models (name, fingerprint, context_length, has_reward_model) VALUES ('m', 'f', 4096, true)"
            )
        )
    engine.dispose()


def write_rows(path: Path, rows: int) -> Path:
    body = {"model": "m", "messages": [{"role": "user", "content": PROMPT}], "max_tokens": 256}
    body |= {"metadata": {"level": "3"}, "ponder": {"reference": "72"}}
    with path.open("w") as file:
        for number in range(rows):
            line = {"custom_id": f"request-{number}", "method": "POST", "url": "/v1/chat/completions", "body": body}
            file.write(json.dumps(line) + "\n")
    return path


def write_megabytes(path: Path, megabytes: int) -> Path:
    with path.open("wb") as file:
        for _ in range(megabytes):
            file.write(b"x" * (1024 * 1024 - 1) + b"\n")
    return path


def submission(client: openai.OpenAI, path: Path) -> dict[str, Any]:
    """Seconds from the first byte of the upload until the batch is in progress."""
    began = time.monotonic()
    with path.open("rb") as content:
        file = client.files.create(file=content, purpose="batch")
    uploaded = time.monotonic()
    batch = client.batches.create(
        input_file_id=file.id,
        endpoint="/v1/chat/completions",
        completion_window="24h",
        extra_body={"ponder": {"strategy": {"name": "best_of_n", "n": 4}, "budget": {"tokens": 2_000}}},
    )
    created = time.monotonic()
    while batch.status == "validating":
        time.sleep(0.5)  # each status request costs the API about as much as a hundred rows
        batch = client.batches.retrieve(batch.id)
    done = time.monotonic()
    assert batch.status == "in_progress", batch
    assert batch.request_counts is not None
    assert batch.request_counts.failed == 0, batch.errors
    return {
        "file_mb": round(path.stat().st_size / 1e6, 1),
        "upload_s": round(uploaded - began, 2),
        "create_s": round(created - uploaded, 3),
        "validate_s": round(done - created, 2),
        "total_s": round(done - began, 2),
        "rows_per_s": round(batch.request_counts.total / (done - began)),
    }


def upload(client: openai.OpenAI, path: Path) -> dict[str, Any]:
    began = time.monotonic()
    with path.open("rb") as content:
        file = client.files.create(file=content, purpose="batch")
    uploaded = time.monotonic()
    with client.files.with_streaming_response.content(file.id) as answer:
        num_bytes = sum(len(piece) for piece in answer.iter_bytes())
    assert num_bytes == file.bytes == path.stat().st_size
    return {
        "large_upload_s": round(uploaded - began, 2),
        "large_download_s": round(time.monotonic() - uploaded, 2),
    }


@contextmanager
def service(name: str, environment: dict[str, str]) -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen([sys.executable, "-m", "ponder.cli", name], env=environment, stdout=sys.stderr)
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()


def wait_until_ready(port: int, timeout_s: float = 60) -> None:
    give_up_at = time.monotonic() + timeout_s
    while time.monotonic() < give_up_at:
        try:
            if httpx2.get(f"http://127.0.0.1:{port}/readyz").is_success:
                return
        except httpx2.TransportError:
            pass
        time.sleep(0.1)
    raise click.ClickException("the API did not become ready")


def peak_mb(process: subprocess.Popen[bytes]) -> float:
    """The largest resident set so far."""
    for line in Path(f"/proc/{process.pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return round(int(line.split()[1]) * 1024 / 1e6, 1)
    raise click.ClickException("Linux only: /proc says nothing of VmHWM")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def described(result: dict[str, Any], rows: int, upload_mb: int) -> dict[str, Any]:
    packages = ("ponder", "fastapi", "uvicorn", "sqlalchemy", "pg8000", "openai")
    return {
        **circumstances(f"{rows:,} rows submitted and validated; {upload_mb} MB uploaded and read back", *packages),
        "rows": rows,
        **result,
    }


if __name__ == "__main__":
    main()
