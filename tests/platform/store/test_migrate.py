"""What a migration makes of the data that it finds."""

from __future__ import annotations

import threading
from dataclasses import astuple, replace
from typing import Any

import pytest
from alembic import command
from sqlalchemy import text
from waiting import until

from ponder.ledger.cost_report import cost_report
from ponder.ledger.reporting import Selection
from ponder.store import migrate as module
from ponder.store.counter import read_counter

_COLUMNS = "SELECT table_name, column_name FROM information_schema.columns WHERE table_schema = 'public'"


def _downgrade(world: Any, revision: str) -> None:
    config = module._config()
    with world.engine.begin() as connection:
        config.attributes["connection"] = connection
        command.downgrade(config, revision)


def test_the_release_before_judges_finds_its_own_tables_and_views_again(world: Any) -> None:
    world.batch(2, num_by_judge=1)
    worker = world.worker()
    jobs = world.claim_all(worker)
    world.tick(worker, settled=[world.passed(job) for job in jobs], work=world.work(*jobs))
    newest = set(map(tuple, world.sql(_COLUMNS)))
    _downgrade(world, "0029")
    columns = set(map(tuple, world.sql(_COLUMNS)))
    _downgrade(world, "0028")
    gone = {name for _, name in columns - set(map(tuple, world.sql(_COLUMNS)))}
    sums = {"num_by_judge", "num_passed_by_judge", "num_compared", "num_agreed"}
    assert gone == {"judged", "checked", "judge_tokens", "judged_tokens"} | sums
    (row,) = world.sql("SELECT num_passed FROM cost_per_successful_task")
    assert row.num_passed == 2
    assert {row.kind for row in world.sql("SELECT kind FROM waste_entries")} >= {"chosen"}
    module.migrate(world.engine)
    assert set(map(tuple, world.sql(_COLUMNS))) == newest
    with world.engine.begin() as connection:
        (found,) = cost_report(connection, Selection())
    assert (found.num_passed, found.num_by_judge) == (2, 0)


def test_batches_of_an_older_release_get_their_totals_and_numbers(world: Any) -> None:
    batch, stopped, waiting = world.batch(3), world.batch(2), world.batch()
    worker = world.worker()
    jobs = [job for job in world.claim_all(worker) if job not in world.jobs(waiting)]
    last = world.jobs(batch)[-1]
    world.tick(worker, settled=[world.passed(last)], work=world.work(*jobs))
    world.tick(worker, settled=[world.passed(job) for job in world.jobs(batch)[:-1]])
    world.cancel(stopped)
    world.tick(worker)
    world.finish()

    _downgrade(world, "0015")
    module.migrate(world.engine)

    for each in (batch, stopped, waiting):
        assert world.totals(each) == world.counted(each)
    with world.engine.begin() as connection:
        before = cost_report(connection, Selection(("batch", "model")))
    world.fold_costs()
    with world.engine.begin() as connection:
        after = cost_report(connection, Selection(("batch", "model")))
    for one, other in zip(before, after, strict=True):
        assert replace(one, sums=other.sums) == other
        # Floating-point numbers that are added in another order differ in their last digits.
        assert astuple(one.sums) == pytest.approx(astuple(other.sums))
    assert [(row.num_jobs, row.num_settled) for row in before] == [(3, 3), (2, 2), (1, 0)]
    assert world.numbered(batch) == [last, *world.jobs(batch)[:-1]]
    assert sorted(world.numbered(stopped)) == world.jobs(stopped)


def test_waiting_batches_of_an_older_release_get_their_uncut_tokens(world: Any) -> None:
    world.batch(25, tokens=100)
    world.dispatch()
    _downgrade(world, "0029")
    module.migrate(world.engine)
    (portion,) = world.sql("SELECT uncut_tokens FROM portions")
    assert portion.uncut_tokens == 500


def test_the_counters_of_an_older_release_begin_with_its_ledger_and_its_workers(world: Any) -> None:
    world.batch(2)
    worker = world.worker()
    jobs = world.claim_all(worker)
    world.tick(worker, settled=[world.passed(job) for job in jobs], work=world.work(*jobs))
    world.release(worker, reason="aws notice, 118 s before")

    def counters() -> list[dict[str, int]]:
        with world.engine.connect() as connection:
            return [dict(read_counter(connection, name)) for name in ("spent", "preempted")]

    before = counters()
    assert before[0]["work"] > 0
    assert before[1] == {"aws notice": 1}
    _downgrade(world, "0033")
    module.migrate(world.engine)
    assert counters() == before


def test_settled_jobs_of_an_older_release_can_be_listed_by_cost(world: Any) -> None:
    batch = world.batch(3, level="2")
    worker = world.worker()
    first, second, _ = world.claim_all(worker)
    world.tick(worker, settled=[world.passed(first), world.passed(second)], work=world.work(first, second))
    world.tick(worker)
    world.tally()
    world.fold_costs()
    listed = world.sql("SELECT * FROM settled_jobs ORDER BY line")
    assert [row.job_id for row in listed] == [first, second]

    _downgrade(world, "0036")
    module.migrate(world.engine)

    assert world.sql("SELECT * FROM settled_jobs ORDER BY line") == listed
    world.tick(worker, settled=[world.passed(world.jobs(batch)[2])])
    world.tally()
    world.fold_costs()
    [row] = world.sql("SELECT count(*) AS num FROM settled_jobs")
    assert row.num == 3


@pytest.mark.parametrize("revision", ["0030", "0036"])
def test_no_migration_deadlocks_with_a_tick(world: Any, revision: str) -> None:
    """A tick holds its incarnation and jobs first, and writes of costs, counts and the lease later."""
    world.batch()
    _downgrade(world, revision)
    migration = threading.Thread(target=module.migrate, args=(world.engine,))
    waits = "SELECT 1 FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
    with world.engine.begin() as tick:
        for table in ("incarnations", "jobs"):
            tick.execute(text(f"SELECT id FROM {table} FOR NO KEY UPDATE"))
        migration.start()
        until(lambda: world.sql(waits), 30)
        for table in ("tallies", "ledger_entries", "late_costs", "batches", "incarnations"):
            tick.execute(text(f"LOCK TABLE {table} IN ROW EXCLUSIVE MODE"))
    migration.join(60)
    [row] = world.sql("SELECT version_num FROM alembic_version")
    assert row.version_num == module.newest()
