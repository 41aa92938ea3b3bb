"""The overhead of a model's workers, from which estimates of the direct cost become those of the loaded cost."""

from __future__ import annotations

from typing import Any

import pytest

from ponder.domain.forecast.ratio import Estimate
from ponder.jobs.estimating.fleet import loading_of


def _loading(world: Any, *fingerprints: str) -> Estimate:
    with world.engine.connect() as connection:
        return loading_of(connection, fingerprints)


def _serve(world: Any, *, idle_fraction: float, fingerprint: str = "f0") -> str:
    """Lets a new worker settle a job."""
    world.batch(1, fingerprint=fingerprint)
    worker = str(world.worker(fingerprint=fingerprint))
    jobs = world.claim_all(worker)
    world.tick(worker, settled=[world.passed(job) for job in jobs], work=world.work(*jobs), idle_fraction=idle_fraction)
    return worker


@pytest.fixture
def assumed(world: Any) -> Estimate:
    return _loading(world, "f0")


def test_it_is_that_of_the_hours_in_which_the_model_s_own_workers_served_jobs(world: Any, assumed: Estimate) -> None:
    for _ in range(20):
        _serve(world, idle_fraction=0.5)
    _serve(world, idle_fraction=0.99, fingerprint="f1")
    assert assumed.value < _loading(world, "f0").value < 2.5
    assert _loading(world, "f0").value < _loading(world, "f0", "f1").value


def test_folding_changes_nothing(world: Any) -> None:
    _serve(world, idle_fraction=0.5)
    before = _loading(world, "f0")
    world.fold_costs()
    assert _loading(world, "f0") == before


def test_hours_of_the_day_before_do_not_count(world: Any, assumed: Estimate) -> None:
    worker = _serve(world, idle_fraction=0.5)
    world.sql("UPDATE incarnations SET started_at = started_at - interval '3 days' WHERE id = :id", id=worker)
    assert _loading(world, "f0") != assumed
    world.rewrite_ledger("UPDATE ledger_entries SET until_at = until_at - interval '25 hours'")
    assert _loading(world, "f0") == assumed


def test_however_much_the_workers_of_other_models_book_it_is_the_same(world: Any) -> None:
    _serve(world, idle_fraction=0.5)
    before = _loading(world, "f0")
    other = world.worker(fingerprint="f1")
    world.rewrite_ledger(
        """
        INSERT INTO ledger_entries (incarnation_id, kind, nanodollars, from_at, until_at)
        SELECT :id, 'idle', 1, clock_timestamp(), clock_timestamp() FROM generate_series(1, 100001)
        """,
        id=other,
    )
    assert _loading(world, "f0") == before
