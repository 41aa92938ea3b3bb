from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from sqlalchemy import Engine

from ponder.domain.batch.line import MAX_LINE_BYTES
from ponder.domain.budget import most_tokens
from ponder.jobs.batch.cancel import cancel
from ponder.jobs.validation.validate import validate


def test_lines_become_jobs_pinned_to_the_weights_that_are_served(desk: Any) -> None:
    first = desk.line("a", metadata={"level": 3}, ponder={"strategy": "self_consistency"})
    batch = desk.batch(first, desk.line("b"), budget={"tokens": 100})
    row = desk.row(batch)
    assert (row.state, row.num_lines, row.lane) == ("in_progress", 2, "batch")
    assert row.in_progress_at >= row.created_at
    one, two = desk.jobs(batch)
    assert (one.line, one.custom_id, one.model, one.fingerprint) == (1, "a", "demo", "f0")
    assert (one.strategy, one.level, one.state, two.strategy, two.level) == (
        "self_consistency",
        "3",
        "pending",
        "direct",
        None,
    )
    assert one.request["messages"] == [{"role": "user", "content": "1 + 1?"}]
    assert one.request["budget"]["tokens"] == 100
    assert one.estimated_tokens > 0
    [portion] = desk.sql("SELECT * FROM portions")
    assert (portion.model, portion.fingerprint, portion.cut_until, portion.last_line) == ("demo", "f0", 0, 2)


def test_a_bad_line_never_stops_the_others(desk: Any) -> None:
    without_id = desk.line()
    del without_id["custom_id"]
    batch = desk.batch(
        desk.line("good"),
        b"not json",
        without_id,
        desk.line("good"),
        desk.line("m", model="nobody"),
        desk.line("b", ponder={"budget": -1}),
        desk.line("nul", messages=[{"role": "user", "content": "a\x00b"}]),
        desk.line("half", messages=[{"role": "user", "content": "\ud83d"}]),
        desk.line("bad\x00id"),
        desk.line("t", tools=[{"type": "function"}]),
        desk.line("w") | {"url": "/v1/embeddings"},
        b'{"custom_id": "' + b"x" * MAX_LINE_BYTES + b'"}',
        desk.line("also good"),
    )
    assert [job.custom_id for job in desk.jobs(batch)] == ["good", "also good"]
    assert desk.rejected(batch) == {
        2: ("invalid_json_line", None, None),
        3: ("missing_required_parameter", "custom_id", None),
        4: ("duplicate_custom_id", "custom_id", "good"),
        5: ("model_not_found", "body.model", "m"),
        6: ("invalid_budget", "body.ponder.budget.tokens", "b"),
        7: ("nul_character", "body.messages[0].content", "nul"),
        8: ("lone_surrogate", "body.messages[0].content", "half"),
        9: ("nul_character", "custom_id", "bad\ufffdid"),
        10: ("unsupported_field", "body.tools", "t"),
        11: ("invalid_url", "url", "w"),
        12: ("line_too_long", None, None),
    }
    assert desk.row(batch).num_lines == 13


@pytest.mark.parametrize("custom_id", ["a\tb\nc\rd\\e", "\\N", "\\.", "é∀😀", "'; DROP TABLE jobs; --", " "])
def test_any_text_is_a_custom_id(desk: Any, custom_id: str) -> None:
    content = 'tabs\tand\nlines\\ \\n \\u0041 "quotes" \u2028 😀'
    batch = desk.batch(desk.line(custom_id, messages=[{"role": "user", "content": content}]))
    [job] = desk.jobs(batch)
    assert job.custom_id == custom_id
    assert job.request["messages"][0]["content"] == content


def test_line_numbers_are_those_of_the_file(desk: Any) -> None:
    content = b"\xef\xbb\xbf" + b"\r\n".join([json.dumps(desk.line("a")).encode(), b"", b"?", b" "])
    content += b"\r\n" + json.dumps(desk.line("b")).encode()
    batch = desk.submit(desk.file(content, chunk=7))
    validate(desk.engine, batch)
    assert [job.line for job in desk.jobs(batch)] == [1, 5]
    assert set(desk.rejected(batch)) == {3}
    assert desk.row(batch).num_lines == 3


def test_a_strict_batch_fails_with_its_first_bad_line(desk: Any) -> None:
    batch = desk.batch(desk.line("a"), desk.line("b", n=0), strict=True)
    row = desk.row(batch)
    assert (row.state, row.errors[0]["code"]) == ("failed", "strict")
    assert row.failed_at is not None
    assert desk.jobs(batch) == []
    assert set(desk.rejected(batch)) == {2}
    [file] = desk.sql("SELECT * FROM files WHERE id = :id", id=row.error_file_id)
    assert (file.kind, file.batch_id) == ("errors", batch)


@pytest.mark.parametrize(
    ("content", "code"), [(b"", "empty_file"), (b"\n\r\n  \n", "empty_file"), (b"PK\x03\x04\nx", "invalid_file")]
)
def test_a_file_without_a_readable_line_fails(desk: Any, content: bytes, code: str) -> None:
    batch = desk.submit(desk.file(content))
    validate(desk.engine, batch)
    row = desk.row(batch)
    assert (row.state, row.errors[0]["code"]) == ("failed", code)


def test_a_batch_of_refused_lines_goes_on_to_its_end(desk: Any) -> None:
    batch = desk.batch(desk.line("a", model="nobody"))
    assert (desk.row(batch).state, len(desk.rejected(batch))) == ("in_progress", 1)


def test_a_batch_cancelled_during_validation_gets_no_jobs(
    desk: Any, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    import ponder.jobs.validation.validate as module

    batch = desk.submit(desk.file(json.dumps(desk.line()).encode()))

    def split_and_cancel(chunks: Any) -> Any:
        yield from split(chunks)
        with engine.begin() as connection:
            cancel(connection, "tenant_00", batch)

    split = module.split
    monkeypatch.setattr(module, "split", split_and_cancel)
    validate(engine, batch)
    assert (desk.row(batch).state, desk.jobs(batch)) == ("cancelling", [])


def test_validating_twice_at_once_makes_the_jobs_once(desk: Any, engine: Engine) -> None:
    lines = b"\n".join(json.dumps(desk.line(str(number))).encode() for number in range(500))
    batch = desk.submit(desk.file(lines, chunk=100_000))
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda _: validate(engine, batch), range(4)))
    validate(engine, batch)
    assert len(desk.jobs(batch)) == 500
    assert desk.row(batch).state == "in_progress"


def test_a_line_can_ask_for_the_interactive_lane(desk: Any) -> None:
    batch = desk.batch(desk.line("a"), desk.line("b", ponder={"priority": "interactive"}))
    assert desk.row(batch).lane == "interactive"


def test_the_weights_of_a_live_worker_go_before_newer_ones(desk: Any) -> None:
    desk.sql(
        "INSERT INTO models (name, fingerprint, context_length, has_reward_model, last_seen_at) "
        "VALUES ('demo', 'newer', 512, true, clock_timestamp() + interval '1 hour')"
    )
    assert desk.jobs(desk.batch(desk.line()))[0].fingerprint == "newer"
    desk.sql(
        "INSERT INTO incarnations (id, worker, host, pid, model, fingerprint, machine, market, nanodollars_per_hour, "
        "state, lease_until, billed_until) VALUES ('inc_00', 'w', 'h', 1, 'demo', 'f0', 'cpu', 'spot', 1, 'ready', "
        "clock_timestamp() + interval '1 minute', clock_timestamp())"
    )
    assert desk.jobs(desk.batch(desk.line()))[0].fingerprint == "f0"


def test_rows_that_the_database_refuses_fail_the_batch_instead_of_being_tried_for_ever(
    desk: Any, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ponder.jobs.estimating.sizer.Sizer.tokens", lambda sizer, size: -(2**40))
    batch = desk.batch(desk.line())
    row = desk.row(batch)
    assert (row.state, row.errors[0]["code"]) == ("failed", "unstorable")


def test_a_validation_that_breaks_off_can_be_done_again(desk: Any, engine: Engine, monkeypatch: Any) -> None:
    batch = desk.submit(desk.file(b"\n".join(json.dumps(desk.line(str(n))).encode() for n in range(2_000))))
    with monkeypatch.context() as patch:
        patch.setattr("ponder.jobs.validation.ingestion.parse", lambda *arguments: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            validate(engine, batch)
    assert (desk.row(batch).state, desk.jobs(batch)) == ("validating", [])
    validate(engine, batch)
    assert len(desk.jobs(batch)) == 2_000


def test_more_refusals_than_memory_holds_are_kept(desk: Any) -> None:
    batch = desk.batch(desk.line("good"), *(b"bad %d" % number for number in range(40_000)))
    assert (len(desk.rejected(batch)), len(desk.jobs(batch))) == (40_000, 1)


@pytest.mark.parametrize(
    "bodies",
    [
        [{}],
        [{"max_tokens": 40}, {"max_tokens": 30}, {}],
        [{"max_tokens": 40, "n": 3}, {"max_tokens": 100}],
        [
            {"ponder": {"strategy": {"name": "self_consistency", "n": 4}, "budget": {"tokens_per_sample": 20}}},
            {"max_tokens": 90},
        ],
        [{"ponder": {"budget": {"tokens": 25}}}, {"max_tokens": 24}],
        [{"reasoning_effort": "minimal"}, {"ponder": {"budget": {"tokens": 2_000}}}],
    ],
)
def test_a_portion_knows_what_its_smallest_job_may_generate(desk: Any, bodies: list[dict[str, Any]]) -> None:
    batch = desk.batch(*(desk.line(f"c{number}", **body) for number, body in enumerate(bodies)), pilot={"jobs": 1})
    jobs = desk.jobs(batch)
    assert len(jobs) == len(bodies)
    least = min(most_tokens(job.request, 512) for job in jobs)
    for table in ("portions", "shards"):
        assert [row.least_tokens for row in desk.sql(f"SELECT least_tokens FROM {table}")] == [least]
