"""Retention through the API and the command line: how long, until when, and what is said afterwards."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import httpx2
import openai
import pytest
from sqlalchemy import Engine, text

from ponder.domain.state import JobState
from ponder.jobs.retention.prune import prune
from ponder.jobs.tally import tally
from ponder.jobs.tick import Settlement

Submitted = Callable[..., openai.types.Batch]
EXPIRY = {"anchor": "created_at", "seconds": 7_200}


@pytest.fixture
def age(engine: Engine) -> Callable[..., None]:
    """Makes everything that has ended so many seconds older, and lets the dispatcher prune if asked."""

    def make_older(seconds: int, *, is_pruned: bool = True) -> None:
        with engine.begin() as connection:
            tally(connection)
            connection.execute(
                text("UPDATE batches SET completed_at = completed_at - :s * interval '1 second'"), {"s": seconds}
            )
        while is_pruned and prune(engine, for_s=1.0):
            pass

    return make_older


@pytest.fixture
def ended(client: openai.OpenAI, worker: Any, passed: Any, line: Any) -> Callable[..., openai.types.Batch]:
    def make(settle: Any = passed, **said: Any) -> openai.types.Batch:
        file = client.files.create(file=("a.jsonl", b'{"bad": 1}\n' + json.dumps(line()).encode()), purpose="batch")
        batch = client.batches.create(
            input_file_id=file.id, endpoint="/v1/chat/completions", completion_window="24h", **said
        )
        worker.validate()
        worker.work(settle)
        return client.batches.retrieve(batch.id)

    return make


def test_the_openai_client_sets_when_results_expire_and_sees_it_on_the_files(
    client: openai.OpenAI, ended: Callable[..., openai.types.Batch]
) -> None:
    batch = ended(output_expires_after=EXPIRY)
    assert batch.completed_at is not None
    assert batch.output_file_id is not None
    assert client.files.retrieve(batch.output_file_id).expires_at == batch.completed_at + 7_200
    assert client.files.retrieve(batch.input_file_id).expires_at is None
    listed = {file.id: file.expires_at for file in client.files.list(purpose="batch_output")}
    assert listed[batch.output_file_id] == batch.completed_at + 7_200
    assert ended().model_dump()["ponder"]["results_expire_at"] is None


@pytest.mark.parametrize(
    ("expiry", "param"),
    [
        ({"anchor": "created_at", "seconds": 3_599}, "output_expires_after.seconds"),
        ({"anchor": "created_at", "seconds": -1}, "output_expires_after.seconds"),
        ({"anchor": "created_at", "seconds": "7200"}, "output_expires_after.seconds"),
        ({"anchor": "completed_at", "seconds": 7_200}, "output_expires_after.anchor"),
        ({"anchor": "created_at"}, "output_expires_after.seconds"),
        ({**EXPIRY, "days": 1}, "output_expires_after.days"),
    ],
)
def test_a_malformed_retention_is_refused_by_its_field(
    http: httpx2.Client, submitted: Submitted, line: Any, expiry: Any, param: str
) -> None:
    body = {"input_file_id": submitted([line()]).input_file_id, "completion_window": "24h"}
    answer = http.post("/v1/batches", json={**body, "output_expires_after": expiry})
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, param)


@pytest.mark.parametrize("is_pruned", [False, True])
def test_afterwards_files_are_not_found_and_results_gone_with_the_date(
    client: openai.OpenAI,
    http: httpx2.Client,
    ended: Callable[..., openai.types.Batch],
    age: Callable[..., None],
    is_pruned: bool,
) -> None:
    batch = ended(output_expires_after=EXPIRY)
    age(7_300, is_pruned=is_pruned)
    for file_id in (batch.output_file_id, batch.error_file_id):
        assert file_id is not None
        for call in (client.files.retrieve, client.files.content, client.files.delete):
            with pytest.raises(openai.NotFoundError, match=rf"{file_id} expired on 20\d\d-\d\d-\d\d at .* UTC"):
                call(file_id)
    for query in ({}, {"follow": True}, {"after": f"{batch.id}-n000000000001"}):
        answer = http.get(f"/v1/batches/{batch.id}/results", params=query)
        assert answer.status_code == 410
        assert answer.json()["error"]["code"] == "results_expired"
        assert "expired on 20" in answer.json()["error"]["message"]
    found = http.get(f"/v1/batches/{batch.id}").json()
    assert found["request_counts"] == {"total": 2, "completed": 1, "failed": 1}
    assert found["ponder"]["pruned_at"] is not None
    assert (found["errors"], found["ponder"]["options"]) == (None, {})
    assert http.get("/v1/batches").json()["data"][0]["ponder"]["options"] == {}
    answer = http.post(f"/v1/batches/{batch.id}/retry")
    assert (answer.status_code, answer.json()["error"]["code"]) == (410, "results_expired")


@pytest.mark.parametrize("is_pruned", [False, True])
def test_afterwards_a_job_keeps_its_verdict_usage_and_cost_only(
    http: httpx2.Client, ended: Callable[..., openai.types.Batch], age: Callable[..., None], is_pruned: bool
) -> None:
    batch = ended(output_expires_after=EXPIRY)
    (job,) = http.get(f"/v1/batches/{batch.id}/jobs").json()["data"]
    before = http.get(f"/v1/jobs/{job['id']}").json()
    assert (before["pruned_at"], before["answer"]) == (None, "7")
    age(7_300, is_pruned=is_pruned)
    after = http.get(f"/v1/jobs/{job['id']}").json()
    assert (after["request"], after["answer"], after["tree"]) == ({}, None, None)
    assert after["pruned_at"] is not None
    for field in ("state", "verdict", "usage", "cost", "attempts", "custom_id"):
        assert after[field] == before[field], field
    (listed,) = http.get(f"/v1/batches/{batch.id}/jobs").json()["data"]
    assert listed == {**job, "answer": None}


@pytest.mark.parametrize("is_pruned", [False, True])
def test_afterwards_an_error_keeps_its_code_only(
    http: httpx2.Client, ended: Callable[..., openai.types.Batch], age: Callable[..., None], is_pruned: bool
) -> None:
    error = {"code": "invalid_request", "message": "quotes the prompt"}
    batch = ended(lambda job: Settlement(job, JobState.FAILED, error=error), output_expires_after=EXPIRY)
    age(7_300, is_pruned=is_pruned)
    (job,) = http.get(f"/v1/batches/{batch.id}/jobs").json()["data"]
    assert job["error"] == {"code": "invalid_request", "message": "deleted with the results"}
    assert http.get(f"/v1/jobs/{job['id']}").json()["error"] == job["error"]


@pytest.mark.parametrize("is_pruned", [False, True])
def test_afterwards_an_input_file_stays_that_another_batch_used(
    client: openai.OpenAI, ended: Callable[..., openai.types.Batch], age: Callable[..., None], is_pruned: bool
) -> None:
    batch = ended(output_expires_after=EXPIRY)
    client.batches.create(input_file_id=batch.input_file_id, endpoint="/v1/chat/completions", completion_window="24h")
    age(7_300, is_pruned=is_pruned)
    assert "bad" in client.files.content(batch.input_file_id).text
    assert batch.input_file_id in [file.id for file in client.files.list()]


@pytest.mark.parametrize("is_pruned", [False, True])
def test_afterwards_the_input_file_is_not_found(
    client: openai.OpenAI, ended: Callable[..., openai.types.Batch], age: Callable[..., None], is_pruned: bool
) -> None:
    batch = ended(output_expires_after=EXPIRY)
    age(7_300, is_pruned=is_pruned)
    for call in (client.files.retrieve, client.files.content, client.files.delete):
        with pytest.raises(openai.NotFoundError, match="expired on 20"):
            call(batch.input_file_id)
    assert list(client.files.list()) == []
    with pytest.raises(openai.NotFoundError, match="there is no input file"):
        client.batches.create(
            input_file_id=batch.input_file_id, endpoint="/v1/chat/completions", completion_window="24h"
        )


def test_a_tenants_default_is_for_batches_submitted_from_then_on_that_do_not_say_it(
    http: httpx2.Client, submitted: Submitted, line: Any, engine: Engine
) -> None:
    tenant = http.get("/v1/tenants").json()["data"][0]
    assert tenant["output_expires_after"] is None
    before = submitted([line()])
    answer = http.put(f"/v1/tenants/{tenant['id']}/retention", json={"output_expires_after": EXPIRY})
    assert answer.json()["output_expires_after"] == EXPIRY
    after = submitted([line()])
    body = {"input_file_id": after.input_file_id, "completion_window": "24h"}
    own = http.post("/v1/batches", json={**body, "output_expires_after": {**EXPIRY, "seconds": 9_000}}).json()
    with engine.connect() as connection:
        kept = dict(connection.execute(text("SELECT id, output_expires_after_s FROM batches")).all())
    assert kept == {before.id: None, after.id: 7_200, own["id"]: 9_000}
    answer = http.put(f"/v1/tenants/{tenant['id']}/retention", json={"output_expires_after": None})
    assert answer.json()["output_expires_after"] is None


def test_a_prune_discards_every_unused_file(http: httpx2.Client, engine: Engine) -> None:
    tenant = http.get("/v1/tenants").json()["data"][0]["id"]
    with engine.begin() as connection:
        connection.execute(
            text("""
                INSERT INTO files (id, tenant_id, filename, purpose, kind, bytes, created_at)
                SELECT 'file-' || n, :tenant_id, 'x', 'batch', 'input', 1, now() - interval '1 hour'
                FROM generate_series(1, 2100) AS n
            """),
            {"tenant_id": tenant},
        )
    counted = http.post("/v1/prunes", json={"older_than_s": 60, "dry_run": True}).json()
    assert (counted["files"], counted["bytes"]) == (2_100, 2_100)
    assert http.post("/v1/prunes", json={"older_than_s": 60}).json() == {**counted, "dry_run": False}
    assert http.get("/v1/files").json()["data"] == []


def test_a_prune_reports_only_what_it_discards(
    http: httpx2.Client, ended: Callable[..., openai.types.Batch], age: Callable[..., None], engine: Engine
) -> None:
    first, second = ended(), ended()
    age(7_300, is_pruned=False)
    with engine.begin() as connection:
        connection.execute(text("SELECT FROM batches WHERE id = :id FOR SHARE"), {"id": first.id})
        found = http.post("/v1/prunes", json={"older_than_s": 60}).json()
    assert (found["batches"], found["lines"], found["files"]) == (1, 2, 3)
    pruned_at = [http.get(f"/v1/batches/{batch.id}").json()["ponder"]["pruned_at"] for batch in (first, second)]
    assert (pruned_at[0] is None, pruned_at[1] is None) == (True, False)
    assert http.post("/v1/prunes", json={"older_than_s": 60}).json()["batches"] == 1


def test_a_tenant_prunes_its_own_batches_only(
    http: httpx2.Client, stranger: httpx2.Client, ended: Callable[..., openai.types.Batch], age: Callable[..., None]
) -> None:
    ended()
    age(7_300)
    body = {"older_than_s": 3_600}
    assert stranger.post("/v1/prunes", json=body).json()["batches"] == 0
    assert stranger.post("/v1/prunes", json={**body, "tenant": "all"}).status_code == 403
    counted = http.post("/v1/prunes", json={**body, "dry_run": True}).json()
    assert (counted["batches"], counted["lines"], counted["files"]) == (1, 2, 3)
    assert counted["bytes"] > 100
    assert http.post("/v1/prunes", json={"dry_run": True}).json()["batches"] == 0
    assert http.post("/v1/prunes", json={**body, "tenant": "all"}).json() == {**counted, "dry_run": False}
    assert http.post("/v1/prunes", json=body).json()["batches"] == 0
    assert http.post("/v1/prunes", json={"older_than_s": -1}).json()["error"]["param"] == "older_than_s"
