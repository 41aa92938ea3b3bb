"""Comparisons of sets of jobs that answered the same problems."""

from __future__ import annotations

import random
from statistics import fmean
from typing import Any

import pytest

from ponder.domain.state import JobState, Verdict
from ponder.jobs.tick import Settlement, Work
from ponder.ledger.cost_report import cost_report
from ponder.ledger.interval import Comparison, compare
from ponder.ledger.pairing import Pairing, pair
from ponder.ledger.reporting import Selection

NUM = 30


def _run(world: Any, *, factor: float, seed: int, prompts: str = "'problem ' || line") -> str:
    """Makes a batch of problems that get dearer and fail more often by their number, for everybody."""
    batch = world.batch(NUM)
    world.sql(
        "UPDATE jobs SET request = jsonb_set(request, '{messages}', jsonb_build_array(jsonb_build_object("
        f"'role', 'user', 'content', {prompts}))) WHERE batch_id = :id",
        id=batch,
    )
    noise = random.Random(seed)
    worker = world.worker()
    jobs = world.claim_all(worker)
    weights = [factor * (1 + number**2) * noise.uniform(0.8, 1.2) for number in range(NUM)]
    settled = [
        Settlement(job, JobState.COMPLETED, verdict=Verdict.FAILED if number % 5 == 4 else Verdict.PASSED)
        for number, job in enumerate(jobs)
    ]
    work = [Work(job, weight) for job, weight in zip(jobs, weights, strict=True)]
    world.tick(worker, work=work, settled=settled)
    return str(batch)


def _compared(world: Any, a: str, b: str) -> tuple[Comparison, Comparison, Pairing | None]:
    """Returns the comparisons with pairs and without."""
    first, second = Selection(where={"batch": a}), Selection(where={"batch": b})
    with world.engine.begin() as connection:
        (one,), (other,) = cost_report(connection, first), cost_report(connection, second)
        pairing = pair(connection, first, second)
    variance = None if pairing is None else pairing.variance
    return compare(one.sums, other.sums, variance), compare(one.sums, other.sums), pairing


def _width(compared: Comparison) -> float:
    assert compared.interval is not None
    assert compared.interval.high is not None
    return compared.interval.high / compared.interval.low


def test_pairs_narrow_the_interval_and_leave_the_ratio(world: Any) -> None:
    a, b = _run(world, factor=1.0, seed=1), _run(world, factor=1.5, seed=2)
    paired, unpaired, pairing = _compared(world, a, b)
    assert pairing is not None
    assert (pairing.by, pairing.num_paired) == ("prompt", NUM)
    assert paired.ratio == unpaired.ratio
    assert _width(paired) < 1 + (_width(unpaired) - 1) / 3


def test_the_variance_is_that_of_each_problems_share(world: Any) -> None:
    a, b = _run(world, factor=1.0, seed=3), _run(world, factor=1.0, seed=4)
    _, _, pairing = _compared(world, a, b)
    shares: list[list[float]] = []
    for batch in (a, b):
        rows = world.sql(
            """
            SELECT CAST(verdict = 'passed' AS int) AS passed, CAST(sum(loaded_nanodollars) AS float8) AS cost
            FROM cost_entries JOIN jobs ON jobs.id = job_id WHERE cost_entries.batch_id = :id
            GROUP BY jobs.id ORDER BY line
            """,
            id=batch,
        )
        cost, passed = fmean(row.cost for row in rows), fmean(row.passed for row in rows)
        shares.append([row.cost / cost - row.passed / passed for row in rows])
    squares = sum((one - other) ** 2 for one, other in zip(*shares, strict=True)) / NUM**2
    assert pairing is not None
    assert pairing.variance == pytest.approx(squares * NUM / (NUM - 1))


def test_problems_with_other_prompts_are_paired_by_their_custom_ids(world: Any) -> None:
    a, b = _run(world, factor=1.0, seed=1), _run(world, factor=1.5, seed=2, prompts="'Answer briefly: ' || line")
    paired, unpaired, pairing = _compared(world, a, b)
    assert pairing is not None
    assert (pairing.by, pairing.num_paired) == ("custom_id", NUM)
    assert _width(paired) < _width(unpaired)


def test_sets_without_a_common_problem_are_compared_as_independent(world: Any) -> None:
    a, b = _run(world, factor=1.0, seed=1), _run(world, factor=1.5, seed=2, prompts="'other ' || line")
    world.sql("UPDATE jobs SET custom_id = 'other-' || line WHERE batch_id = :id", id=b)
    paired, unpaired, pairing = _compared(world, a, b)
    assert pairing is None
    assert paired == unpaired


def test_a_problem_that_only_one_set_has_counts_as_before(world: Any) -> None:
    a, b = _run(world, factor=1.0, seed=1), _run(world, factor=1.5, seed=2)
    world.sql(
        "UPDATE jobs SET custom_id = 'new-' || line, request = jsonb_set(request, '{messages}', to_jsonb(line))"
        " WHERE batch_id = :id AND line > 2",
        id=b,
    )
    paired, unpaired, pairing = _compared(world, a, b)
    assert pairing is not None
    assert pairing.num_paired == 2
    assert _width(paired) == pytest.approx(_width(unpaired), rel=0.1)


def test_prompts_that_were_deleted_are_not_taken_for_the_same(world: Any) -> None:
    a, b = _run(world, factor=1.0, seed=1), _run(world, factor=1.5, seed=2)
    world.sql("UPDATE jobs SET request = '{}', custom_id = custom_id || batch_id")
    assert _compared(world, a, b)[2] is None
