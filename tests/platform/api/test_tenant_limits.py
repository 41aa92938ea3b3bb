"""Limits on a tenant, and their refusals."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx2
import openai
import pytest

from ponder.api.tenant_limits import Concurrency, RequestRate
from ponder.errors import LimitReached
from ponder.settings import Settings

_LINE = {"custom_id": "a", "method": "POST", "url": "/v1/chat/completions", "body": {"model": "demo", "messages": []}}
_CONTENT = json.dumps(_LINE).encode()


@pytest.fixture
def settings() -> Settings:
    return Settings(max_requests_per_s=2, max_uploads=1, max_stored_bytes=1_000, max_open_batches=3)


@pytest.fixture
def tenant(base_url: str, stranger: httpx2.Client) -> Iterator[openai.OpenAI]:
    key = stranger.headers["Authorization"].removeprefix("Bearer ")
    with openai.OpenAI(base_url=f"{base_url}/v1", api_key=key, max_retries=0) as client:
        yield client


def _upload(client: httpx2.Client, num_bytes: int = 100) -> httpx2.Response:
    return client.post("/v1/files", data={"purpose": "batch"}, files={"file": ("x.jsonl", b"x" * num_bytes)})


def test_requests_beyond_the_rate_are_refused_with_openais_headers(
    tenant: openai.OpenAI, http: httpx2.Client, stranger: httpx2.Client
) -> None:
    first = stranger.get("/v1/batches")
    assert first.headers["x-ratelimit-limit-requests"] == "20"
    assert int(first.headers["x-ratelimit-remaining-requests"]) == 19
    assert float(first.headers["x-ratelimit-reset-requests"].removesuffix("s")) > 0
    while (answer := stranger.get("/v1/batches")).status_code == 200:
        pass
    assert answer.status_code == 429
    assert answer.json()["error"]["code"] == "rate_limit_exceeded"
    assert "PONDER_MAX_REQUESTS_PER_S" in answer.json()["error"]["message"]
    assert answer.headers["Retry-After"] == "1"
    assert answer.headers["x-ratelimit-remaining-requests"] == "0"
    with pytest.raises(openai.RateLimitError):
        tenant.batches.list()
    assert http.get("/v1/batches").status_code == 200  # another tenant's


def test_keys_of_one_tenant_share_its_rate(base_url: str, stranger: httpx2.Client) -> None:
    second = stranger.post("/v1/keys", json={"name": "second"}).json()["key"]
    while stranger.get("/v1/batches").status_code == 200:
        pass
    headers = {"Authorization": f"Bearer {second}"}
    # A request is earned every half second, and a rate of its own would allow twenty at once.
    assert 429 in [httpx2.get(f"{base_url}/v1/batches", headers=headers).status_code for _ in range(15)]


def test_an_operator_has_no_rate(http: httpx2.Client) -> None:
    answers = [http.get("/v1/batches") for _ in range(40)]
    assert {answer.status_code for answer in answers} == {200}
    assert "x-ratelimit-limit-requests" not in answers[0].headers


def test_a_tenants_files_have_so_many_bytes_and_deleting_makes_room(stranger: httpx2.Client) -> None:
    kept = _upload(stranger, 450)
    assert kept.status_code == 200
    refused = _upload(stranger, 600)
    assert (refused.status_code, refused.json()["error"]["code"]) == (429, "storage_limit_exceeded")
    assert "PONDER_MAX_STORED_BYTES" in refused.json()["error"]["message"]
    assert refused.headers["x-should-retry"] == "false"
    stranger.delete(f"/v1/files/{kept.json()['id']}").raise_for_status()
    assert _upload(stranger, 600).status_code == 200


def test_bytes_that_were_not_announced_count_too(stranger: httpx2.Client) -> None:
    def pieces() -> Iterator[bytes]:
        yield b'--b\r\nContent-Disposition: form-data; name="purpose"\r\n\r\nbatch\r\n'
        yield b'--b\r\nContent-Disposition: form-data; name="file"; filename="x"\r\n\r\n' + b"x" * 1_001
        yield b"\r\n--b--\r\n"

    headers = {"Content-Type": "multipart/form-data; boundary=b"}
    answer = stranger.post("/v1/files", content=pieces(), headers=headers)
    assert answer.json()["error"]["code"] == "storage_limit_exceeded"
    assert stranger.get("/v1/files").json()["data"] == []


def test_one_upload_at_a_time(base_url: str, stranger: httpx2.Client) -> None:
    begun, go_on = threading.Event(), threading.Event()

    def pieces() -> Iterator[bytes]:
        yield b'--b\r\nContent-Disposition: form-data; name="purpose"\r\n\r\nbatch\r\n'
        begun.set()
        assert go_on.wait(30)
        yield b'--b\r\nContent-Disposition: form-data; name="file"; filename="x"\r\n\r\nx\r\n--b--\r\n'

    headers = {**stranger.headers, "Content-Type": "multipart/form-data; boundary=b"}
    with ThreadPoolExecutor(1) as pool:
        slow = pool.submit(httpx2.post, f"{base_url}/v1/files", content=pieces(), headers=headers, timeout=60)
        assert begun.wait(30)
        while (refused := _upload(stranger)).status_code == 200:  # until the slow one has arrived
            stranger.delete(f"/v1/files/{refused.json()['id']}")
            time.sleep(0.1)  # the tenant has so many requests a minute
        go_on.set()
        assert (refused.status_code, refused.json()["error"]["code"]) == (429, "too_many_uploads")
        assert slow.result().status_code == 200


def test_open_batches_are_counted_exactly_over_all_connections(stranger: httpx2.Client, engine: Any) -> None:
    file_id = _upload(stranger).json()["id"]
    body = {"input_file_id": file_id, "endpoint": "/v1/chat/completions", "completion_window": "24h"}
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: stranger.post("/v1/batches", json=body), range(8)))
    assert sorted(answer.status_code for answer in answers) == [200] * 3 + [429] * 5
    refused = next(answer for answer in answers if answer.status_code == 429)
    assert refused.json()["error"]["code"] == "too_many_open_batches"
    assert "PONDER_MAX_OPEN_BATCHES" in refused.json()["error"]["message"]


def test_a_bucket_fills_again_with_time() -> None:
    now = 0.0
    rate = RequestRate(2.0, clock=lambda: now)
    for _ in range(20):
        rate.take("a")
    with pytest.raises(LimitReached) as caught:
        rate.take("a")
    assert caught.value.retry_after_s == 0.5
    now = 1.0
    rate.take("a")
    assert (rate.left("a").remaining, rate.left("a").reset_s) == (1, 9.5)


def test_a_slot_is_free_again_whatever_happened_in_it() -> None:
    slots = Concurrency(1, "uploads", "PONDER_MAX_UPLOADS")
    for _ in range(3):
        with pytest.raises(ZeroDivisionError), slots.one("a", is_operator=False):
            _ = 1 / 0
    with slots.one("a", is_operator=False), slots.one("b", is_operator=False), slots.one("a", is_operator=True):
        pass
