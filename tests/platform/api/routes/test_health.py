"""Health, readiness and metrics of the API."""

from __future__ import annotations

from datetime import UTC, datetime

import httpx2
import pytest
from fastapi.testclient import TestClient
from sqlalchemy import Engine, text
from structlog.testing import capture_logs

from ponder.api.limit import MAX_BODY_BYTES
from ponder.api.server import create_app
from ponder.jobs.dispatching.dispatcher_status import record
from ponder.settings import Settings
from ponder.store.database import connect


def test_it_is_ready_when_postgres_and_redis_are(base_url: str) -> None:
    assert httpx2.get(f"{base_url}/healthz").json() == {"status": "ok"}
    assert httpx2.get(f"{base_url}/readyz").json() == {
        "status": "ok",
        "postgres": "ok",
        "redis": "ok",
        "dispatcher": "ok",
        "last_dispatcher_error": None,
    }


def test_a_database_that_is_not_migrated_is_not_ready(base_url: str, engine: Engine) -> None:
    with engine.begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '0000'"))
    answer = httpx2.get(f"{base_url}/readyz")
    assert answer.status_code == 503
    assert "ponder migrate" in answer.json()["postgres"]


def test_without_services_it_is_up_but_not_ready() -> None:
    engine = connect("postgresql://nobody@127.0.0.1:1/none")
    client = TestClient(create_app(engine, "redis://127.0.0.1:1", Settings()))
    assert client.get("/healthz").status_code == 200
    said = client.get("/readyz").json()
    assert (said["status"], said["postgres"]) == ("unready", "does not answer")
    assert said["redis"].startswith("does not answer: ")
    assert said["dispatcher"].startswith("unknown: ")
    answer = client.get("/v1/batches", headers={"Authorization": "Bearer pk-x"})
    assert (answer.status_code, answer.json()["error"]["type"]) == (503, "server_error")
    assert "ponder_database_up 0.0" in client.get("/metrics").text


@pytest.mark.parametrize(
    ("statement", "said"),
    [
        ("DELETE FROM dispatcher", "not running: never seen"),
        ("UPDATE dispatcher SET seen_at = '2026-01-02 03:04:05Z'", "not running: last seen 2026-01-02 03:04:05 UTC"),
        (
            "UPDATE dispatcher SET error = 'publish: Redis refuses', failing_since = '2026-01-02 03:04:05Z'",
            "fails since 2026-01-02 03:04:05 UTC: publish: Redis refuses",
        ),
    ],
)
def test_without_a_dispatcher_that_does_its_work_it_is_not_ready(
    base_url: str, engine: Engine, statement: str, said: str
) -> None:
    with engine.begin() as connection:
        connection.execute(text(statement))
    answer = httpx2.get(f"{base_url}/readyz")
    assert (answer.status_code, answer.json()["dispatcher"]) == (503, said)


def test_the_last_error_of_the_dispatcher_is_shown_with_its_time_even_if_it_is_over(
    base_url: str, engine: Engine
) -> None:
    for error in ("publish: Redis refuses", None):
        with engine.begin() as connection:
            record(connection, error, holds_work_up=error is not None)
    said = httpx2.get(f"{base_url}/readyz").json()
    assert said["dispatcher"] == "ok"
    assert said["last_dispatcher_error"]["message"] == "publish: Redis refuses"
    assert datetime.fromisoformat(said["last_dispatcher_error"]["at"]) <= datetime.now(UTC)


def test_a_step_that_fails_without_holding_work_up_leaves_it_ready(base_url: str, engine: Engine) -> None:
    with engine.begin() as connection:
        record(connection, "fold: OperationalError: 55P03")
    answer = httpx2.get(f"{base_url}/readyz")
    assert (answer.status_code, answer.json()["dispatcher"]) == (200, "ok")
    assert answer.json()["last_dispatcher_error"]["message"] == "fold: OperationalError: 55P03"
    metrics = httpx2.get(f"{base_url}/metrics").text
    assert ("ponder_dispatcher_up 1.0" in metrics, "ponder_dispatcher_failing 1.0" in metrics) == (True, True)


def test_a_bug_of_ours_is_answered_without_details_and_logged_with_its_tenant(
    http: httpx2.Client, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    def break_here(*_: object, **__: object) -> None:
        raise ValueError("a prompt")

    monkeypatch.setattr("ponder.api.routes.batches.batch_objects", break_here)
    with capture_logs() as logged:
        answer = http.get("/v1/batches")
    assert (answer.status_code, answer.json()["error"]["code"]) == (500, "internal_error")
    assert "prompt" not in answer.text
    [entry] = logged
    with engine.connect() as connection:
        tenant = connection.execute(text("SELECT id FROM tenants WHERE name = 'home'")).scalar_one()
    assert (entry["event"], entry["path"], entry["tenant"]) == ("unexpected_error", "/v1/batches", tenant)


def test_metrics_count_requests_by_route(http: httpx2.Client, worker: object) -> None:
    http.get("/v1/batches/batch_00")
    metrics = http.get("/metrics").text
    assert 'ponder_http_requests_total{method="GET",route="/v1/batches/{batch_id}",status="404"} 1.0' in metrics
    assert 'ponder_live_workers{machine="cpu",market="on_demand",model="demo",state="ready"} 1.0' in metrics
    assert "ponder_database_up 1.0" in metrics


def test_strangers_do_not_make_the_metrics_grow(http: httpx2.Client) -> None:
    def ask(number: int) -> None:
        for path in ("/v1/batches", f"/v1/batches/batch_{number}", f"/nowhere/{number}", "/metrics"):
            http.request(f"METHOD{number}", path)
        http.get("/metrics")

    ask(0)
    before = http.get("/metrics").text
    for number in range(1, 20):
        ask(number)
    after = http.get("/metrics").text
    assert "METHOD" not in after
    assert len(after.splitlines()) == len(before.splitlines())


def test_a_body_that_is_too_large_is_refused(http: httpx2.Client) -> None:
    assert http.post("/v1/tenants", json={"name": "x" * MAX_BODY_BYTES}).status_code == 413


@pytest.mark.parametrize("body", [b"{", b"[]", b'{"name": "\xff"}', b'"x"', b'{"name": 1}', b'{"nam": "x"}', b"{}"])
def test_a_body_that_is_wrong_is_named(http: httpx2.Client, body: bytes) -> None:
    answer = http.post("/v1/tenants", content=body, headers={"Content-Type": "application/json"})
    assert answer.status_code == 400
    assert answer.json()["error"]["message"]


@pytest.mark.parametrize(
    ("content", "kind"),
    [(b"{}", "application/json"), (b"nonsense", "multipart/form-data; boundary=x"), (b"", "text/plain")],
)
def test_an_upload_that_is_not_a_form_is_refused(http: httpx2.Client, content: bytes, kind: str) -> None:
    answer = http.post("/v1/files", content=content, headers={"Content-Type": kind})
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] in ("file", "purpose")
