"""Two weeks of settled jobs with different strategies, levels, models and machines, for pages that sum them up."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from typing import Any

from world import World

from ponder.domain.state import JobState, Verdict
from ponder.jobs.tick import Settlement, Usage, Work

STRATEGIES: Mapping[str, tuple[float, float]] = {
    "direct": (1.0, 0.45),
    "self_consistency": (6.0, 0.62),
    "best_of_n": (7.0, 0.71),
    "beam_search": (15.0, 0.68),
}
"""What each costs relative to `direct`, and how often it passes at level 2."""


def settle_history(
    world: World,
    tenant: str,
    *,
    models: Sequence[str] = ("qwen3-8b", "llama-3.1-8b"),
    levels: Sequence[str] = ("1", "2", "3"),
    num_jobs: int = 12,
    seed: int = 7,
) -> list[str]:
    """Settles a batch of every strategy, level and model, spread over fourteen days. Returns the batches."""
    source = random.Random(seed)
    batches = []
    for number, model in enumerate(models):
        machine = (
            {"machine": "h200", "market": "spot"} if number % 2 == 0 else {"machine": "h100", "market": "on_demand"}
        )
        worker = world.worker(model=model, **machine)
        for strategy in STRATEGIES:
            for level in levels:
                batches.append(world.batch(num_jobs, tenant=tenant, models=(model,), strategy=strategy, level=level))
                jobs = world.claim_all(worker)
                weights = [Work(job, STRATEGIES[strategy][0] * source.uniform(0.4, 1.8)) for job in jobs]
                settled = [_settled(source, job, strategy, level) for job in jobs]
                world.tick(worker, work=weights, settled=settled, idle_fraction=0.2)
    _spread(world)
    world.tally()
    world.fold_costs()
    _sum_days(world)
    world.finish()
    return batches


def _settled(source: random.Random, job: int, strategy: str, level: str) -> Settlement:
    passes = STRATEGIES[strategy][1] + 0.2 * (2 - int(level) if level.isdigit() else 0)
    tokens = int(STRATEGIES[strategy][0] * source.uniform(200, 900))
    usage = Usage(source.randint(80, 400), tokens, int(tokens * 0.4), cached_tokens=source.randint(0, 80))
    if source.random() < 0.04:
        error = {"code": "worker_lost", "message": "lost three times"}
        return Settlement(job, JobState.FAILED, error=error, usage=usage, tree=_tree(tokens, 1))
    return Settlement(
        job,
        JobState.COMPLETED,
        Verdict.PASSED if source.random() < passes else Verdict.FAILED,
        answer="7",
        finish_reason="length" if source.random() < 0.05 else "stop",
        choices=({"text": "7", "finish_reason": "stop"},),
        usage=usage,
        tree=_tree(tokens, source.choice((1, 1, 2))),
    )


def _tree(tokens: int, num_rounds: int) -> dict[str, Any]:
    half = tokens // 2
    nodes = [
        {"parent": -1, "ordinal": 0, "tokens": 0},
        {"parent": 0, "ordinal": 0, "tokens": tokens - half},
        {"parent": 0, "ordinal": 1, "tokens": half},
    ]
    return {"nodes": nodes, "candidates": [{"node": 1}, {"node": 2}], "rounds": [0, 1][:num_rounds]}


def _spread(world: World) -> None:
    """Moves jobs and their entries into the past, and makes the moments that they took as dear as hours."""
    shift = "make_interval(days => CAST(mod({0} * 5, 14) AS int), mins => CAST(mod({0} * 37, 600) AS int))"
    dear = " ".join(f"WHEN '{name}' THEN {factor}" for name, (factor, _) in STRATEGIES.items())
    world.rewrite_ledger(
        "UPDATE ledger_entries SET nanodollars = 2000 * least(nanodollars, 100000000) * coalesce("
        f"(SELECT CASE strategy {dear} END FROM jobs WHERE jobs.id = job_id), 4),"
        f" from_at = from_at - {shift.format('coalesce(job_id, id)')},"
        f" until_at = until_at - {shift.format('coalesce(job_id, id)')}"
    )
    moved = shift.format("id")
    world.sql(
        f"UPDATE jobs SET settled_at = settled_at - {moved},"
        f" created_at = settled_at - {moved} - make_interval(secs => 8 + mod(id * 31, 97))"
    )
    world.sql(
        "UPDATE usage SET first_token_at = jobs.created_at + make_interval(secs => 1 + mod(job_id * 13, 50) / 10.0),"
        " first_visible_token_at = jobs.created_at + make_interval(secs => 3 + mod(job_id * 17, 70) / 10.0)"
        " FROM jobs WHERE jobs.id = job_id"
    )
    world.sql(
        "UPDATE attempts SET started_at = jobs.created_at + interval '0.4 second',"
        " ended_at = jobs.settled_at FROM jobs WHERE jobs.id = job_id"
    )


def _sum_days(world: World) -> None:
    world.sql("DELETE FROM day_totals")
    world.sql(
        "INSERT INTO day_totals (tenant_id, key_id, day, num_completed, num_failed, direct_nanodollars,"
        " generated_tokens, settled_nanodollars)"
        " SELECT tenant_id, NULL, CAST(until_at AT TIME ZONE 'UTC' AS date), count(DISTINCT job_id), 0,"
        " sum(nanodollars), 0, sum(nanodollars) FROM ledger_entries WHERE job_id IS NOT NULL GROUP BY 1, 3"
    )
