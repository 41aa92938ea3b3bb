"""Properties of every answer."""

from __future__ import annotations

import httpx2
import pytest

from ponder.api.limit import MAX_BODY_BYTES


@pytest.mark.parametrize("method", ["GET", "POST"])
@pytest.mark.parametrize("path", ["/v1/batches/", "/v1/files/", "/v1/keys/", "/healthz/", "//v1/batches"])
def test_a_path_with_an_extra_slash_is_not_found(http: httpx2.Client, method: str, path: str) -> None:
    answer = http.request(method, path, headers={"Host": "evil.example"})
    assert answer.status_code == 404
    assert "evil.example" not in str(answer.headers)
    error = answer.json()["error"]
    assert (error["type"], error["code"]) == ("invalid_request_error", "not_found")


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/healthz"),
        ("GET", "/v1/batches"),
        ("GET", "/v1/batches/batch_00"),
        ("PATCH", "/v1/batches"),
        ("GET", "/nowhere"),
        ("GET", "/metrics"),
        ("GET", "/openapi.json"),
    ],
)
def test_every_answer_has_headers_that_keep_browsers_from_rendering_or_storing_it(
    http: httpx2.Client, method: str, path: str
) -> None:
    headers = http.request(method, path).headers
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert "default-src 'none'" in headers["Content-Security-Policy"]
    assert headers["Cache-Control"] == "no-store"


def test_a_refusal_that_reaches_no_route_has_these_headers_too(http: httpx2.Client) -> None:
    answer = http.post("/v1/keys", content=b"x" * (MAX_BODY_BYTES + 1))
    assert (answer.status_code, answer.headers["X-Content-Type-Options"]) == (413, "nosniff")


@pytest.mark.parametrize("path", ["/docs", "/redoc", "/docs/oauth2-redirect"])
def test_no_page_loads_scripts_from_elsewhere(http: httpx2.Client, path: str) -> None:
    assert http.get(path).status_code == 404
