"""Results as they come: every line once, whatever breaks, and errors that name the field."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import httpx2
import pytest
from sqlalchemy import Engine, text

from ponder.api.outcome import refused_lines, settled_lines
from ponder.api.routes import result_lines
from ponder.jobs.batch.cancel import cancel
from ponder.jobs.dispatching.finish import finish, follow
from ponder.jobs.tally import settled_after, tally
from ponder.settings import Settings


@pytest.fixture
def settings() -> Settings:
    return Settings(max_streams=1)


@pytest.fixture
def fold(engine: Engine) -> Callable[[], None]:
    """Does a round of the dispatcher."""

    def do() -> None:
        for step in (finish, follow, tally):
            with engine.begin() as connection:
                step(connection)

    return do


@pytest.fixture
def batch(worker: Any, submitted: Any, line: Any) -> str:
    """Four jobs, and a refused line among them."""
    found = submitted([line("a"), line("b"), b"no JSON", line("c"), line("d")])
    worker.validate()
    return str(found.id)


def _ids(lines: list[dict[str, Any]]) -> list[Any]:
    return [line["custom_id"] for line in lines]


def _change(engine: Engine, statement: str, **values: Any) -> None:
    with engine.begin() as connection:
        connection.execute(text(statement), values)


def _page(http: httpx2.Client, batch: str, **query: Any) -> tuple[list[dict[str, Any]], bool]:
    """Returns the lines, and whether that is all."""
    answer = http.get(f"/v1/batches/{batch}/results", params=query).raise_for_status()
    lines = [json.loads(line) for line in answer.text.splitlines()]
    assert answer.headers["Content-Type"] == "application/jsonl"
    assert all(line["cursor"] <= answer.headers["Ponder-Cursor"] for line in lines)
    return lines, answer.headers["Ponder-Complete"] == "true"


@pytest.mark.parametrize(
    ("is_exhausted", "end", "code"),
    [
        (True, "expired", "budget_exhausted"),
        (False, "expired", "batch_expired"),
        (True, "cancelled", "batch_cancelled"),
    ],
)
def test_lines_name_the_same_error_as_the_error_file(
    batch: str, http: httpx2.Client, engine: Engine, fold: Any, is_exhausted: bool, end: str, code: str
) -> None:
    if end == "cancelled":
        http.post(f"/v1/batches/{batch}/cancel").raise_for_status()
    _change(engine, "UPDATE batches SET expires_at = now() WHERE :end = 'expired'", end=end)
    fold()
    _change(engine, "UPDATE batches SET exhausted_at = now() WHERE :is_exhausted", is_exhausted=is_exhausted)
    found = http.get(f"/v1/batches/{batch}").json()
    file = http.get(f"/v1/files/{found['error_file_id']}/content").text
    from_file = [json.loads(line) for line in file.splitlines()]
    lines, is_complete = _page(http, batch)
    assert (found["status"], is_complete) == (end, True)
    assert sorted((line["custom_id"] or "", line["error"]["code"]) for line in lines) == [
        ("", "invalid_json_line"),
        *((name, code) for name in "abcd"),
    ]
    for line in lines:
        del line["cursor"]
    assert sorted(lines, key=lambda line: line["error"]["line"]) == from_file


def test_lines_come_as_jobs_settle_as_in_the_files_with_a_cursor_each(
    worker: Any, batch: str, http: httpx2.Client, passed: Any, failed: Any, fold: Any
) -> None:
    first, second, third, fourth = worker.claim()
    refused, is_complete = _page(http, batch)
    assert ([line["error"]["line"] for line in refused], is_complete) == ([3], False)
    worker.tick([passed(third), failed(first)], [third, first])
    fold()
    settled, is_complete = _page(http, batch, after=refused[-1]["cursor"])
    assert (_ids(settled), is_complete) == (["a", "c"], False)
    worker.tick([passed(fourth)])
    worker.tick([passed(second)])
    assert _page(http, batch, after=settled[-1]["cursor"]) == ([], False), "the batch has ended, its numbers are due"
    fold()
    rest, is_complete = _page(http, batch, after=settled[-1]["cursor"])
    assert (_ids(rest), is_complete) == (["d", "b"], True)
    assert _page(http, batch, after=rest[-1]["cursor"]) == ([], True)

    lines = refused + settled + rest
    assert [line["cursor"] for line in lines] == sorted(line["cursor"] for line in lines)
    found = http.get(f"/v1/batches/{batch}").json()
    files = [http.get(f"/v1/files/{found[name]}/content").text for name in ("output_file_id", "error_file_id")]
    expected = [json.loads(line) for content in files for line in content.splitlines()]
    without = [{name: value for name, value in line.items() if name != "cursor"} for line in lines]
    assert sorted(without, key=str) == sorted(expected, key=str)


def test_pages_of_any_size_have_every_line_once(
    worker: Any, batch: str, http: httpx2.Client, passed: Any, fold: Any
) -> None:
    worker.work(passed)
    fold()
    for limit in (1, 2, 3, 5, 6):
        lines: list[dict[str, Any]] = []
        is_complete = False
        while not is_complete:
            after = {"after": lines[-1]["cursor"]} if lines else {}
            page, is_complete = _page(http, batch, limit=limit, **after)
            assert len(page) <= limit
            lines += page
        assert _ids(lines) == [None, "a", "b", "c", "d"]


def test_each_query_is_of_one_tenant(
    worker: Any, batch: str, http: httpx2.Client, passed: Any, engine: Engine, fold: Any
) -> None:
    worker.work(passed)
    fold()
    mine = http.get("/v1/tenants").json()["data"][0]["id"]
    for tenant, num_refused, num_settled in ((mine, 1, 4), ("tenant_00", 0, 0)):
        with engine.connect() as connection:
            assert len(refused_lines(connection, tenant, batch, 0, 10)) == num_refused
            assert len(settled_after(connection, tenant, batch, 0, 10)) == num_settled
            jobs = list(settled_after(connection, mine, batch, 0, 10).values())
            assert len(settled_lines(connection, tenant, jobs)) == num_settled


def test_a_cancelled_batch_has_its_files_at_once_and_its_lines_when_the_rows_have_followed(
    worker: Any, batch: str, http: httpx2.Client, passed: Any, engine: Engine, fold: Any
) -> None:
    first, *_ = worker.claim()
    worker.tick([passed(first)])
    tenant = http.get("/v1/tenants").json()["data"][0]["id"]
    with engine.begin() as connection:
        cancel(connection, tenant, batch)
    worker.tick()
    found = http.get(f"/v1/batches/{batch}").json()
    assert found["status"] == "cancelled"
    output, errors = (
        http.get(f"/v1/files/{found[name]}/content").text.splitlines() for name in ("output_file_id", "error_file_id")
    )
    assert [len(output), len(errors)] == [1, 4], "before any row has followed"
    assert not _page(http, batch)[1]
    fold()
    lines, is_complete = _page(http, batch)
    assert is_complete
    assert sorted(line["error"]["code"] for line in lines if line["error"]) == [
        *["batch_cancelled"] * 3,
        "invalid_json_line",
    ]


def test_an_expired_and_a_failed_batch_have_their_files_at_once(
    worker: Any, submitted: Any, line: Any, http: httpx2.Client, engine: Engine, fold: Any
) -> None:
    late, strict = submitted([line("a")]).id, submitted([line("a"), b"no JSON"], strict=True).id
    worker.validate()
    with engine.begin() as connection:
        connection.execute(text("UPDATE batches SET expires_at = clock_timestamp() WHERE id = :id"), {"id": late})
        finish(connection)
    for batch, status, code in ((late, "expired", "batch_expired"), (strict, "failed", "invalid_json_line")):
        found = http.get(f"/v1/batches/{batch}").json()
        assert (found["status"], found["output_file_id"]) == (status, None)
        [error] = http.get(f"/v1/files/{found['error_file_id']}/content").text.splitlines()
        assert json.loads(error)["error"]["code"] == code
    fold()
    fold()
    for batch in (late, strict):
        lines, is_complete = _page(http, batch)
        assert (len(lines), is_complete) == (1, True)


def _following(http: httpx2.Client, batch: str, **query: Any) -> Iterator[str]:
    with http.stream("GET", f"/v1/batches/{batch}/results", params={"follow": "true", **query}) as answer:
        answer.raise_for_status()
        yield from answer.iter_lines()


def test_following_begins_before_validation_and_ends_after_the_last_line(
    worker: Any, submitted: Any, line: Any, http: httpx2.Client, passed: Any, fold: Any
) -> None:
    batch = submitted([line("a"), b"no JSON", line("b")]).id
    lines = _following(http, batch)
    seen: list[str] = []
    reader = threading.Thread(target=lambda: seen.extend(lines))
    reader.start()
    time.sleep(0.3)
    worker.validate()
    first, second = worker.claim()
    worker.tick([passed(second)])
    fold()
    _until(lambda: len(seen) == 2)
    worker.tick([passed(first)])
    fold()
    reader.join(30)
    assert not reader.is_alive()
    assert _ids([json.loads(line) for line in seen]) == [None, "b", "a"]


def test_a_quiet_stream_has_a_blank_line_now_and_then_and_leaves_its_slot_when_its_client_goes(
    batch: str,
    http: httpx2.Client,
    monkeypatch: pytest.MonkeyPatch,
    base_url: str,
) -> None:
    monkeypatch.setattr(result_lines, "_HEARTBEAT_S", 0.2)
    key = http.post("/v1/keys", json={"name": "mine"}).raise_for_status().json()["key"]
    with httpx2.Client(base_url=base_url, headers={"Authorization": f"Bearer {key}"}, timeout=30) as client:
        lines = _following(client, batch)
        assert json.loads(next(lines))["error"]["line"] == 3
        assert next(lines) == ""
        refusal = client.get(f"/v1/batches/{batch}/results?follow=true")
        assert (refusal.status_code, refusal.json()["error"]["code"]) == (429, "too_many_streams")
        lines.close()  # type: ignore[attr-defined]

        def begins() -> bool:
            with client.stream("GET", f"/v1/batches/{batch}/results?follow=true") as answer:
                return answer.status_code == 200

        _until(begins)


def test_a_slow_reader_holds_no_database_connection(
    worker: Any, batch: str, http: httpx2.Client, passed: Any, fold: Any, engine: Engine
) -> None:
    worker.work(passed)
    lines = _following(http, batch)
    next(lines)
    _until(lambda: engine.pool.checkedout() == 0)  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("query", "param", "code"),
    [
        ({"after": "nonsense"}, "after", "invalid_cursor"),
        ({"after": "batch_0123-n000000000000"}, "after", "invalid_cursor"),
        ({"after": "{batch}-n000000000009"}, "after", "invalid_cursor"),
        ({"after": "{batch}-n1"}, "after", "invalid_cursor"),
        ({"after": "{batch}-n٠٠٠٠٠٠٠٠٠٠٠٠"}, "after", "invalid_cursor"),
        ({"limit": "0"}, "limit", "invalid_value"),
        ({"limit": "1001"}, "limit", "invalid_value"),
        ({"limit": "5", "follow": "true"}, "limit", "invalid_value"),
        ({"follow": "perhaps"}, "follow", "invalid_value"),
    ],
)
def test_what_is_wrong_in_a_query_is_named(
    batch: str, http: httpx2.Client, query: dict[str, str], param: str, code: str
) -> None:
    query = {name: value.replace("{batch}", batch) for name, value in query.items()}
    answer = http.get(f"/v1/batches/{batch}/results", params=query)
    assert answer.status_code == 400
    assert (answer.json()["error"]["param"], answer.json()["error"]["code"]) == (param, code)


def test_another_tenants_batch_and_cursor_are_refused(batch: str, stranger: httpx2.Client, http: httpx2.Client) -> None:
    answer = stranger.get(f"/v1/batches/{batch}/results")
    assert (answer.status_code, answer.json()["error"]["param"]) == (404, "batch_id")
    assert stranger.get(f"/v1/batches/{batch}/results?follow=true").status_code == 404


def _until(is_so: Callable[[], bool]) -> None:
    ends_at = time.monotonic() + 30
    while not is_so():
        assert time.monotonic() < ends_at
        time.sleep(0.05)
