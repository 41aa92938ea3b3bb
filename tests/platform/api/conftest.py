"""The API on a real socket, and a worker without an engine that settles jobs as told.

Clients do not verify, because nothing here speaks TLS, and reading the certificates takes each of them 30 ms.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import httpx2
import openai
import pytest
from sqlalchemy import Engine, text

from ponder.domain.state import IncarnationState, JobState, Verdict
from ponder.jobs.claim import claim
from ponder.jobs.dispatching.dispatch import dispatch
from ponder.jobs.dispatching.finish import finish
from ponder.jobs.incarnation import ready, register
from ponder.jobs.tick import Settlement, TickReport, Usage, Work, tick
from ponder.jobs.validation.validate import validate


@pytest.fixture
def client(base_url: str, operator_key: str) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(
        base_url=f"{base_url}/v1",
        api_key=operator_key,
        max_retries=0,
        http_client=openai.DefaultHttpxClient(verify=False),
    ) as client:
        yield client


@pytest.fixture
def http(base_url: str, operator_key: str) -> Iterator[httpx2.Client]:
    headers = {"Authorization": f"Bearer {operator_key}"}
    with httpx2.Client(base_url=base_url, headers=headers, timeout=30, verify=False) as client:
        yield client


@pytest.fixture
def stranger(http: httpx2.Client, base_url: str) -> Iterator[httpx2.Client]:
    """A client of another tenant, without an operator's rights."""
    http.post("/v1/tenants", json={"name": "strangers"}).raise_for_status()
    key = http.post("/v1/keys", json={"name": "theirs", "tenant": "strangers"}).raise_for_status().json()["key"]
    with httpx2.Client(base_url=base_url, headers={"Authorization": f"Bearer {key}"}, verify=False) as client:
        yield client


@pytest.fixture
def line() -> Callable[..., dict[str, Any]]:
    def make(custom_id: str = "a", **body: Any) -> dict[str, Any]:
        base = {"model": "demo", "messages": [{"role": "user", "content": "Compute 3 + 4."}]}
        return {"custom_id": custom_id, "method": "POST", "url": "/v1/chat/completions", "body": base | body}

    return make


@pytest.fixture
def submitted(client: openai.OpenAI) -> Callable[..., openai.types.Batch]:
    """Uploads lines (values, or bytes as they are) and makes a batch of them."""

    def submit(lines: Sequence[dict[str, Any] | bytes], **options: Any) -> openai.types.Batch:
        content = b"\n".join(one if isinstance(one, bytes) else json.dumps(one).encode() for one in lines)
        file = client.files.create(file=("problems.jsonl", content), purpose="batch")
        return client.batches.create(
            input_file_id=file.id,
            endpoint="/v1/chat/completions",
            completion_window="24h",
            extra_body={"ponder": options} if options else None,
        )

    return submit


class Worker:
    """A worker without an engine."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.num_ticks = 0
        with engine.begin() as connection:
            register(
                connection,
                id="inc_0123456789abcdef01234567",
                worker="w1",
                host="here",
                pid=1,
                model="demo",
                machine="cpu",
                market="on_demand",
                lease_s=60,
            )
            ready(
                connection,
                "inc_0123456789abcdef01234567",
                fingerprint="f0",
                context_length=512,
                has_reward_model=True,
                room_tokens=1_000_000,
            )

    def claim(self) -> list[int]:
        with self.engine.begin() as connection:
            messages = dispatch(connection, shard_tokens=200_000)
        claimed = []
        for message in messages:
            with self.engine.begin() as connection:
                taken = claim(connection, message.shard_id, "inc_0123456789abcdef01234567")
                claimed += [job.job_id for job in taken.jobs] if taken else []
        return claimed

    def tick(
        self,
        settled: Sequence[Settlement] = (),
        work: Sequence[int] = (),
        deltas: Mapping[int, Sequence[Mapping[str, Any]]] | None = None,
    ) -> None:
        self.num_ticks += 1
        report = TickReport(
            "inc_0123456789abcdef01234567",
            self.num_ticks,
            60,
            progressed=True,
            state=IncarnationState.READY,
            room_tokens=1_000_000,
            work=[Work(job_id, 1.0) for job_id in work],
            settled=settled,
            deltas=deltas or {},
        )
        with self.engine.begin() as connection:
            tick(connection, report)
            finish(connection)

    def work(self, settle: Callable[[int], Settlement]) -> None:
        """Claims everything and settles it."""
        while claimed := self.claim():
            self.tick([settle(job_id) for job_id in claimed], claimed)
        with self.engine.begin() as connection:
            finish(connection)

    def validate(self) -> None:
        """Validates and finishes batches, as the dispatcher does."""
        with self.engine.connect() as connection:
            waiting = connection.execute(text("SELECT id FROM batches WHERE state = 'validating'")).scalars().all()
        for batch_id in waiting:
            validate(self.engine, batch_id)
        with self.engine.begin() as connection:
            finish(connection)


@pytest.fixture
def worker(base_url: str, engine: Engine) -> Worker:
    return Worker(engine)


@pytest.fixture
def passed() -> Callable[[int], Settlement]:
    def settle(job_id: int) -> Settlement:
        choice = {"text": "3 + 4 = 7\nAnswer: 7", "answer": "7", "finish_reason": "stop", "score": -0.5}
        return Settlement(
            job_id,
            JobState.COMPLETED,
            Verdict.PASSED,
            answer="7",
            finish_reason="stop",
            choices=[choice],
            usage=Usage(prompt_tokens=9, completion_tokens=12, thinking_tokens=3, cached_tokens=4),
            tree={"nodes": [{"parent": -1}], "candidates": [], "chosen": None},
        )

    return settle


@pytest.fixture
def failed() -> Callable[[int], Settlement]:
    def settle(job_id: int) -> Settlement:
        return Settlement(job_id, JobState.FAILED, error={"code": "worker_lost", "message": "lost three times"})

    return settle
