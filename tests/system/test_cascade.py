"""Jobs of several models, whose workers are killed between the steps."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from fleet import LEASE_S, Fleet, until

pytestmark = [pytest.mark.system, pytest.mark.timeout(180)]

STAGES = [
    {"strategy": {"name": "self_consistency", "n": 4}, "accept": {"by": "agreement", "threshold": 1.0}},
    {"model": "large", "strategy": {"name": "best_of_n", "n": 2}},
]


def test_a_worker_that_is_killed_between_the_stages_loses_nothing_and_no_job_twice(
    fleet: Fleet, make_llama: Callable[..., Path]
) -> None:
    fleet.start_dispatcher()
    (first,) = fleet.start_workers(1)
    large = ("--name", "large", "--model", str(make_llama("large", hidden=64)))
    # A model must have been served before a stage can be pinned to it. This worker leaves, so that jobs have to wait.
    other = fleet.start_worker(*large)
    until(lambda: fleet.scalar("SELECT count(*) FROM incarnations WHERE state = 'ready'") == 2, 120)
    other.terminate()
    assert other.wait(20) == 0

    fleet.submit(3, max_tokens=60, strategy={"name": "cascade", "stages": STAGES})
    until(lambda: fleet.outcomes().count("handed_on") >= 1, 60)
    first.kill()
    first.wait()
    made = fleet.saved_ids()
    assert made

    fleet.start_worker()
    until(lambda: fleet.outcomes().count("handed_on") == 3, LEASE_S + 90)
    assert fleet.num_pending() == 3, "nobody serves the second model"
    fleet.start_worker(*large)
    until(lambda: fleet.num_pending() == 0, 120)

    fleet.check_settled_once(3)
    fleet.check_ledgers()
    outcomes = fleet.outcomes()
    assert (outcomes.count("handed_on"), outcomes.count("settled")) == (3, 3)
    kept = {}
    for job_id, tree, completion_tokens in fleet.rows(
        "SELECT job_id, tree, completion_tokens FROM search_trees JOIN usage USING (job_id)"
    ):
        stages = tree["stages"]
        assert [stage["model"] for stage in stages] == ["slow", "large"]
        assert stages[0]["fingerprint"] != stages[1]["fingerprint"]
        assert not stages[0]["decisions"]["accept"]["accepted"], "random samples do not agree"
        made_by = [sum(node["tokens"] for node in stage["nodes"]) for stage in stages]
        assert made_by == [4 * 60, 2 * 60]
        assert completion_tokens == sum(made_by)
        kept |= {(job_id, index): node["ids"] for index, node in enumerate(stages[0]["nodes"])}
    assert {node: kept[node][: len(ids)] for node, ids in made.items()} == made, "nothing was computed twice"
    spenders = fleet.rows(
        "SELECT DISTINCT model FROM ledger_entries JOIN incarnations ON incarnations.id = incarnation_id"
        " WHERE job_id IS NOT NULL ORDER BY model"
    )
    assert [row.model for row in spenders] == ["large", "slow"]


def test_a_judge_with_a_queue_of_its_own_gets_what_a_killed_worker_made(
    fleet: Fleet, make_llama: Callable[..., Path]
) -> None:
    """Two models judge: one accepts or refuses the first stage, and one counts the success of the job."""
    fleet.start_dispatcher()
    (first,) = fleet.start_workers(1)
    large = ("--name", "large", "--model", str(make_llama("large", hidden=64)))
    judge = fleet.start_worker(*large)
    until(lambda: fleet.scalar("SELECT count(*) FROM incarnations WHERE state = 'ready'") == 2, 120)

    accept = {"by": "judge", "model": "large", "max_tokens": 20}
    stages = [{"strategy": "direct", "accept": accept}, {"strategy": "direct", "model": "slow"}]
    verifier = {"name": "judge", "model": "large", "max_tokens": 20, "template": "{problem} Is it {answer}?"}
    strategy = {"name": "cascade", "stages": stages, "route": False}
    fleet.submit(3, max_tokens=60, strategy=strategy, verifier=verifier)
    until(lambda: fleet.outcomes().count("handed_on") >= 1, 60)
    first.kill()
    judge.kill()
    for worker in (first, judge):
        worker.wait()
    saved = fleet.rows("SELECT job_id, delta FROM tree_deltas WHERE delta ->> 'step' = '0' ORDER BY id")
    fleet.start_worker()
    fleet.start_worker(*large)
    until(lambda: fleet.num_pending() == 0, LEASE_S + 150)

    fleet.check_settled_once(3)
    fleet.check_ledgers()
    for tree, completion_tokens, judge_tokens in fleet.rows(
        "SELECT tree, completion_tokens, judge_tokens FROM search_trees JOIN usage USING (job_id)"
    ):
        steps = tree["stages"]
        assert [(step["model"], step["task"]) for step in steps] == [
            ("slow", "solve"),
            ("large", "accept"),
            ("slow", "solve"),
            ("large", "verify"),
        ]
        made_by = [sum(node["tokens"] for node in step["nodes"]) for step in steps]
        assert made_by[0] == made_by[2] == 60
        assert (completion_tokens, judge_tokens) == (sum(made_by), made_by[1] + made_by[3])
    jobs = fleet.rows("SELECT verdict, judged, checked FROM jobs")
    assert [(job.verdict, job.judged) for job in jobs] == [("unverified", True)] * 3, "random models give no verdict"
    kept = {job_id: tree["stages"][0]["nodes"] for job_id, tree in fleet.rows("SELECT job_id, tree FROM search_trees")}
    made: dict[tuple[int, int], list[int]] = {}
    for job_id, delta in saved:
        for row in delta["nodes"]:
            made.setdefault((job_id, row["node"]), []).extend(row.get("ids", ()) if row["node"] else ())
    assert any(made.values())
    assert all(kept[job_id][index]["ids"][: len(ids)] == ids for (job_id, index), ids in made.items()), "lost"
