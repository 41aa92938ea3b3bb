"""Sixty faults of every kind hit a small fleet, and nothing is lost, doubled, wrongly failed or wrongly billed.

benchmarks/chaos.py does the same with a thousand. On a machine with two cores it takes up to three minutes.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from fault_injection.audit.audit import audit
from fault_injection.audit.evidence import Evidence
from fault_injection.campaign import Campaign, Outcome
from fault_injection.schedule import KINDS
from fault_injection.testbed import Testbed
from sqlalchemy import text

pytestmark = [pytest.mark.slow, pytest.mark.system, pytest.mark.timeout(900)]

SEED, FAULTS = 20, 60


@dataclass(frozen=True)
class Run:
    """One that is over; its Postgres still runs."""

    testbed: Testbed
    evidence: Evidence
    outcomes: list[Outcome]


@pytest.fixture(scope="module")
def run() -> Iterator[Run]:
    print(f"seed {SEED}")
    with TemporaryDirectory(prefix="ponder-chaos-") as folder, Testbed(Path(folder)) as testbed:
        campaign = Campaign(testbed, SEED, FAULTS, limit_s=600)
        yield Run(testbed, campaign.run(), campaign.outcomes)


def test_sixty_faults_of_every_kind_cost_nobody_a_line_a_verdict_or_a_nanodollar(run: Run) -> None:
    with run.testbed.engine.connect() as connection:
        findings = audit(connection, run.evidence)
    assert {name: found for name, found in findings if found} == {}
    assert len(run.outcomes) == FAULTS, "some had no time to begin"
    assert {outcome.kind for outcome in run.outcomes} == {kind.name for kind in KINDS}
    assert [outcome.kind for outcome in run.outcomes if outcome.over_after_s is None] == []


ONE_JOB = "(SELECT min(id) FROM jobs WHERE state = 'completed')"
FIRST_DELTA = """(SELECT min(id) FROM trail.deltas WHERE job_id = (
    SELECT job_id FROM trail.deltas GROUP BY job_id ORDER BY count(*) DESC, job_id LIMIT 1))"""
"""Others follow it. The last delta of a job may be missing, because the next attempt makes up for it."""
GIVEN_UP = "(SELECT min(job_id) FROM results WHERE error ->> 'code' = 'worker_lost')"


@pytest.mark.parametrize(
    ("name", "statement"),
    [
        ("lost", f"DELETE FROM results WHERE job_id = {ONE_JOB}"),
        ("lost", f"UPDATE jobs SET state = 'pending' WHERE id = {ONE_JOB}"),
        ("doubled", f"INSERT INTO trail.moves (job_id, was, became) VALUES ({ONE_JOB}, 'pending', 'completed')"),
        ("doubled", f"UPDATE attempts SET outcome = 'settled' WHERE job_id = {GIVEN_UP}"),
        ("wrongly_failed", f"UPDATE jobs SET state = 'failed', verdict = NULL WHERE id = {ONE_JOB}"),
        ("wrongly_failed", f"UPDATE attempts SET outcome = 'preempted' WHERE job_id = {GIVEN_UP}"),
        ("wrong_bills", "UPDATE ledger_entries SET nanodollars = nanodollars + 1 WHERE id % 100 = 7"),
        ("wrong_bills", "DELETE FROM ledger_entries WHERE kind = 'idle' AND id % 100 = 7"),
        ("wrong_bills", "UPDATE incarnations SET nanodollars_per_hour = nanodollars_per_hour - 1"),
        ("wrong_verdicts", f"UPDATE jobs SET verdict = 'unverified' WHERE id = {ONE_JOB}"),
        ("walls_passed", "UPDATE usage SET completion_tokens = 1300"),
        ("tree_gaps", "INSERT INTO trail.deltas SELECT id + 1000000, job_id, incarnation_id, delta FROM trail.deltas"),
        ("tree_gaps", f"DELETE FROM trail.deltas WHERE id = {FIRST_DELTA}"),
        ("out_of_order", "UPDATE jobs SET line = 1000 - line"),
        (
            "suspects_not_alone",
            "INSERT INTO attempts (tenant_id, job_id, shard_id, incarnation_id, started_at, ended_at, outcome)"
            f" SELECT tenant_id, {ONE_JOB}, shard_id, incarnation_id, started_at, ended_at, 'preempted' FROM attempts"
            f" WHERE id = (SELECT max(id) FROM attempts WHERE job_id = {GIVEN_UP})",
        ),
        ("open_shards", "UPDATE shards SET state = 'queued', holder = NULL"),
    ],
)
def test_the_audit_sees_what_is_not_as_it_should_be(run: Run, name: str, statement: str) -> None:
    with run.testbed.engine.connect() as connection:
        connection.execute(text(statement))
        findings = audit(connection, run.evidence)
        connection.rollback()
    assert getattr(findings, name) != ()
