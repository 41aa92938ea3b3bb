"""One tenant's expensive request does not keep others from being answered."""

from __future__ import annotations

import threading
import time

import httpx2


def test_others_are_answered_while_a_pattern_is_compiled(http: httpx2.Client, stranger: httpx2.Client) -> None:
    costly = "(?i)" + "[\x01-\U0010fffe]" * 300
    body = {
        "input_file_id": "file-00",
        "endpoint": "/v1/chat/completions",
        "completion_window": "24h",
        "ponder": {"verifier": {"name": "regex", "pattern": costly}},
    }
    answers: list[httpx2.Response] = []
    sender = threading.Thread(target=lambda: answers.append(stranger.post("/v1/batches", json=body, timeout=60)))
    sender.start()
    longest = 0.0
    while sender.is_alive():
        began = time.monotonic()
        assert http.get("/healthz").status_code == 200
        longest = max(longest, time.monotonic() - began)
        time.sleep(0.01)
    sender.join()
    assert (answers[0].status_code, answers[0].json()["error"]["code"]) == (400, "too_expensive")
    assert longest < 1.0


def test_a_body_that_goes_on_beyond_its_limit_is_refused(stranger: httpx2.Client) -> None:
    answer = stranger.post("/v1/batches", content=(b" " * 100_000 for _ in range(20)))
    assert (answer.status_code, answer.json()["error"]["code"]) == (413, "body_too_large")


def test_the_api_says_what_a_submission_is(http: httpx2.Client) -> None:
    document = http.get("/openapi.json").json()
    body = document["paths"]["/v1/batches"]["post"]["requestBody"]["content"]["application/json"]["schema"]
    schemas = document["components"]["schemas"]
    assert "input_file_id" in schemas[body["$ref"].rpartition("/")[2]]["properties"]
    assert "verifier" in schemas["BatchOptions"]["properties"]
