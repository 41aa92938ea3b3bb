"""The webhook of a tenant, and that of a batch, through the API."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import httpx2
import openai
import pytest
from pydantic import SecretStr
from sqlalchemy import text

from ponder.settings import Settings

Submitted = Callable[..., openai.types.Batch]

URL = "https://example.com/hook"


@pytest.fixture
def settings() -> Settings:
    return Settings(webhook_key=SecretStr("a key of the operator"))


def test_a_secret_is_shown_once_when_the_url_is_first_set(http: httpx2.Client) -> None:
    assert http.get("/v1/webhook").json() == {
        "object": "webhook",
        "url": None,
        "secret_made_at": None,
        "num_waiting": 0,
        "last_delivered_at": None,
        "last_error": None,
        "last_error_at": None,
    }
    first = http.put("/v1/webhook", json={"url": URL}).raise_for_status().json()
    assert first["secret"].startswith("whsec_")
    assert first["url"] == URL
    for again in (http.get("/v1/webhook"), http.put("/v1/webhook", json={"url": f"{URL}/2"})):
        assert "secret" not in again.raise_for_status().json()
    second = http.post("/v1/webhook/secret").raise_for_status().json()["secret"]
    assert second != first["secret"]
    assert http.put("/v1/webhook", json={"url": None}).json()["url"] is None


def test_tenants_have_different_secrets_and_see_only_their_own_webhook(
    http: httpx2.Client, stranger: httpx2.Client
) -> None:
    secrets = {one.put("/v1/webhook", json={"url": URL}).json()["secret"] for one in (http, stranger)}
    assert len(secrets) == 2
    stranger.put("/v1/webhook", json={"url": None}).raise_for_status()
    assert http.get("/v1/webhook").json()["url"] == URL


def test_the_database_holds_no_secret(http: httpx2.Client, engine: Any) -> None:
    secret = http.put("/v1/webhook", json={"url": URL}).json()["secret"]
    with engine.connect() as connection:
        rows = connection.execute(text("SELECT CAST(webhooks AS text), encode(salt, 'base64') FROM webhooks")).all()
    assert secret.removeprefix("whsec_") not in str(rows)


@pytest.mark.parametrize(
    ("url", "code"),
    [
        ("http://example.com/", "invalid_webhook"),
        ("https://127.0.0.1/", "invalid_webhook"),
        ("https://169.254.169.254/", "invalid_webhook"),
        ("https://[::1]/", "invalid_webhook"),
        ("ftp://example.com/", "invalid_value"),
        ("https://user:pass@example.com/", "invalid_value"),
    ],
)
def test_a_url_that_no_webhook_goes_to_is_refused_by_its_field(
    http: httpx2.Client, submitted: Submitted, line: Any, url: Any, code: str
) -> None:
    answer = http.put("/v1/webhook", json={"url": url})
    assert (answer.status_code, answer.json()["error"]["param"], answer.json()["error"]["code"]) == (400, "url", code)
    http.put("/v1/webhook", json={"url": URL}).raise_for_status()
    with pytest.raises(openai.BadRequestError) as refusal:
        submitted([line()], webhook=url)
    assert (refusal.value.param, refusal.value.code) == ("ponder.webhook", code)


def test_a_batch_needs_a_secret_to_be_signed_with(http: httpx2.Client, submitted: Submitted, line: Any) -> None:
    with pytest.raises(openai.BadRequestError, match="ponder tenant webhook --new-secret") as refusal:
        submitted([line()], webhook=URL)
    assert refusal.value.param == "ponder.webhook"
    http.post("/v1/webhook/secret").raise_for_status()
    batch = submitted([line()], webhook=URL)
    assert http.get(f"/v1/batches/{batch.id}").json()["ponder"]["options"] == {"webhook": URL}


def test_a_failed_batch_is_announced(http: httpx2.Client, submitted: Submitted, worker: Any, engine: Any) -> None:
    http.put("/v1/webhook", json={"url": URL}).raise_for_status()
    batch = submitted([b"this is no JSON"])
    worker.validate()
    with engine.connect() as connection:
        (body,) = connection.execute(text("SELECT body FROM webhook_messages")).scalars()
    event = json.loads(body)
    assert (event["type"], event["data"]["id"], event["data"]["status"]) == ("batch.failed", batch.id, "failed")
    assert http.get("/v1/webhook").json()["num_waiting"] == 1


def test_a_key_that_may_only_read_sets_no_webhook(http: httpx2.Client, base_url: str) -> None:
    key = http.post("/v1/keys", json={"name": "reads", "role": "read"}).json()["key"]
    with httpx2.Client(base_url=base_url, headers={"Authorization": f"Bearer {key}"}) as reader:
        assert reader.put("/v1/webhook", json={"url": URL}).status_code == 403
        assert reader.post("/v1/webhook/secret").status_code == 403
        assert reader.get("/v1/webhook").status_code == 200


class TestWithoutAnOperatorsKey:
    @pytest.fixture
    def settings(self) -> Settings:
        return Settings(webhook_key=SecretStr(""))

    def test_there_are_no_webhooks_and_the_answer_names_the_setting(
        self, http: httpx2.Client, submitted: Submitted, line: Any
    ) -> None:
        for answer in (http.put("/v1/webhook", json={"url": URL}), http.post("/v1/webhook/secret")):
            assert answer.status_code == 409
            assert "PONDER_WEBHOOK_KEY" in answer.json()["error"]["message"]
        with pytest.raises(openai.ConflictError, match="PONDER_WEBHOOK_KEY"):
            submitted([line()], webhook=URL)


class TestWithPrivateAddresses:
    @pytest.fixture
    def settings(self) -> Settings:
        return Settings(webhook_key=SecretStr("a key of the operator"), webhook_private=True)

    def test_they_and_plain_http_are_taken(self, http: httpx2.Client) -> None:
        for url in ("http://127.0.0.1:9/hook", "https://10.0.0.1/"):
            assert http.put("/v1/webhook", json={"url": url}).raise_for_status().json()["url"] == url


def test_a_repeated_submission_gets_its_batch_although_webhooks_are_refused_by_now(
    http: httpx2.Client, submitted: Submitted, line: Any, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    http.put("/v1/webhook", json={"url": URL}).raise_for_status()
    body = {
        "input_file_id": submitted([line()]).input_file_id,
        "endpoint": "/v1/chat/completions",
        "completion_window": "24h",
        "ponder": {"webhook": URL},
    }
    first = http.post("/v1/batches", json=body, headers={"Idempotency-Key": "once"}).raise_for_status().json()
    monkeypatch.setattr("ponder.jobs.webhooks.subscription.SecretMaker.of", lambda settings: None)
    again = http.post("/v1/batches", json=body, headers={"Idempotency-Key": "once"})
    assert (again.status_code, again.json().get("id")) == (200, first["id"])
    assert http.post("/v1/batches", json=body, headers={"Idempotency-Key": "twice"}).status_code == 409
