"""Rights of callers, by key, role and tenant."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any

import httpx2
import pytest
from sqlalchemy import Engine, text

from ponder.store.first_key import ensure_operator_key


def test_without_a_right_key_nothing_is_answered(http: httpx2.Client) -> None:
    for header in (
        {},
        {"Authorization": "Bearer pk-wrong"},
        {"Authorization": "Basic x"},
    ):
        answer = httpx2.get(f"{http.base_url}/v1/batches", headers=header)
        assert answer.status_code == 401
        assert answer.headers["WWW-Authenticate"] == "Bearer"
        assert answer.json()["error"]["code"] == "invalid_api_key"


def test_an_upload_without_a_key_is_not_even_read(http: httpx2.Client) -> None:
    answer = httpx2.post(
        f"{http.base_url}/v1/files", data={"purpose": "batch"}, files={"file": ("x.jsonl", b"{}" * 100_000)}
    )
    assert answer.status_code == 401


def test_a_key_is_shown_once_and_kept_as_its_sha256(http: httpx2.Client, engine: Engine) -> None:
    made = http.post("/v1/keys", json={"name": "laptop"}).json()
    assert made["key"].startswith("pk-")
    assert made["hint"] == made["key"][:8]
    with engine.connect() as connection:
        kept = connection.execute(text("SELECT * FROM api_keys WHERE id = :id"), {"id": made["id"]}).one()
    assert bytes(kept.sha256) == hashlib.sha256(made["key"].encode()).digest()
    assert made["key"] not in str(kept)
    listed = http.get("/v1/keys").json()["data"]
    assert [key["name"] for key in listed] == ["test", "laptop"]
    assert all("key" not in key for key in listed)


def test_a_revoked_key_is_refused(http: httpx2.Client, stranger: httpx2.Client) -> None:
    assert stranger.get("/v1/batches").status_code == 200
    [theirs] = [key for key in http.get("/v1/keys").json()["data"] if key["name"] == "theirs"]
    for _ in range(2):
        assert http.delete(f"/v1/keys/{theirs['id']}").json()["deleted"]
    assert stranger.get("/v1/batches").status_code == 401


@pytest.fixture
def mine(submitted: Callable[..., Any], line: Callable[..., Any], worker: Any, passed: Any) -> Any:
    """A finished batch of the first tenant."""
    batch = submitted([line()])
    worker.validate()
    worker.work(passed)
    return batch


def test_another_tenants_things_do_not_exist(
    http: httpx2.Client, stranger: httpx2.Client, mine: Any, engine: Engine
) -> None:
    output = http.get(f"/v1/batches/{mine.id}").json()["output_file_id"]
    [key] = [key for key in http.get("/v1/keys").json()["data"] if key["name"] == "test"]
    requests = [
        ("GET", f"/v1/files/{mine.input_file_id}"),
        ("GET", f"/v1/files/{mine.input_file_id}/content"),
        ("GET", f"/v1/files/{output}/content"),
        ("DELETE", f"/v1/files/{mine.input_file_id}"),
        ("GET", f"/v1/files?after={mine.input_file_id}"),
        ("GET", f"/v1/batches/{mine.id}"),
        ("GET", f"/v1/batches?after={mine.id}"),
        ("POST", f"/v1/batches/{mine.id}/cancel"),
        ("POST", f"/v1/batches/{mine.id}/retry"),
        ("GET", f"/v1/batches/{mine.id}/jobs"),
        ("GET", "/v1/jobs/job_1"),
        ("DELETE", f"/v1/keys/{key['id']}"),
    ]
    for method, path in requests:
        assert stranger.request(method, path).status_code == 404, (method, path)
    body = {"input_file_id": mine.input_file_id, "endpoint": "/v1/chat/completions", "completion_window": "24h"}
    assert stranger.post("/v1/batches", json=body).status_code == 404
    for path in ("/v1/files", "/v1/batches", "/v1/reports/cost?by=batch"):
        assert stranger.get(path).json()["data"] == [], path
    assert http.get("/v1/jobs/job_1").status_code == 200


def test_only_operators_may_administer(stranger: httpx2.Client) -> None:
    price = {"machine": "h200", "market": "spot", "dollars_per_hour": "1", "source": "me"}
    for method, path, body in (
        ("GET", "/v1/tenants", None),
        ("POST", "/v1/tenants", {"name": "x"}),
        ("POST", "/v1/keys", {"name": "x", "role": "operator"}),
        ("POST", "/v1/keys", {"name": "x", "tenant": "home"}),
        ("PUT", "/v1/prices", price),
        ("GET", "/v1/fleet/plan", None),
        ("GET", "/v1/fleet/log", None),
        ("GET", "/v1/reports/cost?tenant=all", None),
    ):
        answer = stranger.request(method, path, json=body)
        assert answer.status_code == 403, (method, path)
        assert answer.json()["error"]["type"] == "permission_error"
    assert stranger.post("/v1/keys", json={"name": "x"}).status_code == 200
    assert [key["name"] for key in stranger.get("/v1/keys").json()["data"]] == ["theirs", "x"]


def test_two_tenants_have_two_names(http: httpx2.Client) -> None:
    made = http.post("/v1/tenants", json={"name": "strangers"}).json()
    assert made["id"].startswith("tenant_")
    assert http.post("/v1/tenants", json={"name": "strangers"}).status_code == 409
    assert [tenant["name"] for tenant in http.get("/v1/tenants").json()["data"]] == ["home", "strangers"]
    assert http.post("/v1/tenants", json={"name": "\x00"}).status_code == 400


def test_an_operator_sets_and_lifts_a_tenants_quota(http: httpx2.Client) -> None:
    made = http.post("/v1/tenants", json={"name": "hungry", "quota_tokens": 5000}).json()
    assert made["quota_tokens"] == 5000
    assert http.put(f"/v1/tenants/{made['id']}", json={}).json()["quota_tokens"] is None
    assert http.put(f"/v1/tenants/{made['id']}", json={"quota_tokens": 0}).status_code == 400
    assert http.put("/v1/tenants/tenant_0000000000000000", json={}).status_code == 404


def test_the_same_idempotency_key_of_two_tenants_is_two_batches(http: httpx2.Client, stranger: httpx2.Client) -> None:
    made = []
    for client in (http, stranger):
        form = {"data": {"purpose": "batch"}, "files": {"file": ("x.jsonl", b"{}")}}
        body = {"input_file_id": client.post("/v1/files", **form).json()["id"], "completion_window": "24h"}  # type: ignore[arg-type]
        made.append(client.post("/v1/batches", json=body, headers={"Idempotency-Key": "k"}).json()["id"])
    assert made[0] != made[1]


def key_of(http: httpx2.Client, role: str, tenant: str = "home") -> httpx2.Client:
    key = http.post("/v1/keys", json={"name": role, "tenant": tenant, "role": role}).raise_for_status().json()["key"]
    return httpx2.Client(base_url=http.base_url, headers={"Authorization": f"Bearer {key}"})


def test_a_key_that_may_read_changes_nothing(http: httpx2.Client, mine: Any) -> None:
    paths = http.get("/openapi.json").json()["paths"]
    changing = [(path, method) for path, item in paths.items() for method in item if method != "get"]
    assert len(changing) > 8
    with key_of(http, "read") as reader:
        for path in (f"/v1/batches/{mine.id}", "/v1/jobs/job_1", "/v1/keys", "/v1/reports/cost", "/v1/prices"):
            assert reader.get(path).status_code == 200, path
        for path, method in changing:
            answer = reader.request(method, path, json={})
            assert (answer.status_code, answer.json()["error"]["type"]) == (403, "permission_error"), (method, path)
        assert "role submit" in answer.json()["error"]["message"]


def test_a_plain_key_in_the_operators_tenant_cannot_revoke_the_operators(http: httpx2.Client) -> None:
    [key] = [key for key in http.get("/v1/keys").json()["data"] if key["role"] == "operator"]
    with key_of(http, "submit") as plain:
        assert plain.delete(f"/v1/keys/{key['id']}").status_code == 403
        [own] = [key for key in plain.get("/v1/keys").json()["data"] if key["role"] == "submit"]
        assert plain.delete(f"/v1/keys/{own['id']}").json()["deleted"]
        assert plain.get("/v1/keys").status_code == 401
    assert http.delete(f"/v1/keys/{key['id']}").json()["deleted"]
    assert http.get("/v1/keys").status_code == 401


def test_a_revoked_operators_key_comes_back_with_the_next_start(
    http: httpx2.Client, operator_key: str, engine: Engine
) -> None:
    """Both `ponder up` and `ponder migrate` restore it."""
    [key] = http.get("/v1/keys").json()["data"]
    assert http.delete(f"/v1/keys/{key['id']}").json()["deleted"]
    assert http.get("/v1/tenants").status_code == 401
    with engine.begin() as connection:
        ensure_operator_key(connection, operator_key, tenant="home", name="test")
    assert http.get("/v1/tenants").status_code == 200
    assert [key["role"] for key in http.get("/v1/keys").json()["data"]] == ["operator"]


@pytest.mark.parametrize("role", ["owner", "", None, 1, "Operator"])
def test_an_unknown_role_is_refused(http: httpx2.Client, role: object) -> None:
    answer = http.post("/v1/keys", json={"name": "x", "role": role})
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "role")
