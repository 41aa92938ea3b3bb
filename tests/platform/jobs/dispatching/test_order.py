"""What SQL decides about order and shards is what the pure functions say."""

from __future__ import annotations

from collections import deque
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import text

from ponder.jobs.dispatching.cut import cut, sources
from ponder.jobs.dispatching.order import SPAN, next_cut, num_taken, precedence
from ponder.jobs.shard import MAX_JOBS

_FAST = settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)


def _clear(world: Any) -> None:
    world.sql("TRUNCATE batches, shards, jobs, portions, pilots, attempts, incarnations CASCADE")


@given(
    st.lists(
        st.tuples(st.sampled_from(["rest", "released", "pilot", "decided"]), st.integers(1, 4)), min_size=1, max_size=8
    )
)
@_FAST
def test_the_next_source_is_the_one_that_the_function_says(world: Any, batches: list[tuple[str, int]]) -> None:
    _clear(world)
    tenant = world.tenant()
    for kind, hours in batches:
        batch = world.batch(2, tenant=tenant, expires_in_s=3_600 * hours)
        if kind in ("pilot", "decided"):
            world.sql(
                "INSERT INTO pilots (batch_id, job_ids, must_confirm, state)"
                " SELECT :batch, array_agg(id), true, :state FROM jobs WHERE batch_id = :batch AND line = 1",
                batch=batch,
                state="running" if kind == "pilot" else "passed",
            )
        if kind != "rest":
            world.sql(
                "INSERT INTO shards (tenant_id, batch_id, model, fingerprint, lane, job_ids, estimated_tokens)"
                " SELECT tenant_id, batch_id, model, fingerprint, 'batch', array_agg(id), 100 FROM jobs"
                " WHERE batch_id = :batch AND line = 1 GROUP BY tenant_id, batch_id, model, fingerprint",
                batch=batch,
            )
    with world.engine.begin() as connection:
        found = sources(connection, {})
    assert found == sorted(found, key=precedence)
    assert [source.is_pilot for source in found] == sorted((source.is_pilot for source in found), reverse=True)
    assert len(found) == len(batches) + sum(kind in ("released", "decided") for kind, _ in batches)


@given(
    st.lists(st.tuples(st.sampled_from(["demo", "other"]), st.integers(1, 600)), min_size=1, max_size=40),
    st.integers(1, 1_500),
)
@_FAST
def test_a_shard_takes_the_jobs_that_the_function_says(
    world: Any, lines: list[tuple[str, int]], shard_tokens: int
) -> None:
    _clear(world)
    batch = world.batch(len(lines), models=("demo",))
    for number, (model, tokens) in enumerate(lines, start=1):
        world.sql(
            "UPDATE jobs SET model = :model, estimated_tokens = :tokens WHERE batch_id = :batch AND line = :line",
            model=model,
            tokens=tokens,
            batch=batch,
            line=number,
        )
    _compare(world, batch, [(n, tokens) for n, (model, tokens) in enumerate(lines, 1) if model == "demo"], shard_tokens)


def test_so_it_is_for_more_jobs_than_a_shard_or_a_search_holds(world: Any) -> None:
    batch = world.batch(SPAN + MAX_JOBS + 50, tokens=1)
    world.sql(
        "UPDATE jobs SET model = 'other' WHERE line BETWEEN :first AND :last", first=MAX_JOBS + 20, last=SPAN + 100
    )
    lines = [(line, 1) for line in range(1, SPAN + MAX_JOBS + 51) if not MAX_JOBS + 20 <= line <= SPAN + 100]
    _compare(world, batch, lines, shard_tokens=10_000)


def _compare(world: Any, batch: str, lines: list[tuple[int, int]], shard_tokens: int) -> None:
    """Cuts a batch to its end, and compares every step with the function."""
    world.sql("UPDATE portions SET uncut_tokens = :tokens", tokens=sum(tokens for _, tokens in lines))
    (portion,) = world.sql("SELECT cut_until, last_line FROM portions WHERE batch_id = :batch", batch=batch)
    cut_until, left = portion.cut_until, list(lines)
    while cut_until < portion.last_line:
        number, cut_until = next_cut(left, cut_until, portion.last_line, shard_tokens)
        assert _cut(world, shard_tokens) == number
        left = left[number:]
        (now,) = world.sql("SELECT cut_until, uncut_tokens FROM portions WHERE batch_id = :batch", batch=batch)
        assert (now.cut_until, now.uncut_tokens) == (cut_until, sum(tokens for _, tokens in left))


def _cut(world: Any, shard_tokens: int) -> int:
    """Returns the number of jobs of the next shard, or 0 if none was cut."""
    with world.engine.begin() as connection:
        taken = cut(connection, deque(sources(connection, {})), shard_tokens, lane="batch")
        if taken is None:
            return 0
        size = text("SELECT cardinality(job_ids) FROM shards WHERE id = :id")
        return int(connection.execute(size, {"id": taken.shard_id}).scalar_one())


def test_a_job_too_large_for_any_shard_gets_one_of_its_own() -> None:
    assert num_taken([5_000, 1], 1_000) == 1
    assert num_taken([], 1_000) == 0
    assert num_taken([1] * 1_000, None) == MAX_JOBS
