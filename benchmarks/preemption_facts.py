"""The facts that Postgres has about a run of benchmarks/preemption.py."""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, text

from ponder.errors import LedgerImbalance
from ponder.ledger.book import check

_RECOVERY = text("""
    SELECT CAST(extract(epoch FROM max(resumed.started_at)) AS float8)
    FROM attempts JOIN incarnations ON incarnations.id = attempts.incarnation_id
    CROSS JOIN LATERAL (
        SELECT min(later.started_at) AS started_at FROM attempts AS later
        WHERE later.job_id = attempts.job_id AND later.started_at > attempts.started_at
    ) AS resumed
    WHERE incarnations.pid = :pid AND attempts.outcome IN ('preempted', 'lost')
    HAVING max(resumed.started_at) IS NOT NULL
""")


# Seconds are those of the bill. A worker runs samples in parallel, `running` of them on the average while it works.
_SPEEDS = text("""
    SELECT CAST(max(nanodollars_per_hour) AS bigint) AS nanodollars_per_hour,
           CAST(sum(seconds) FILTER (WHERE kind = 'work') AS float8) AS work_s,
           CAST(sum(seconds) FILTER (WHERE kind = 'recomputed') AS float8) AS recomputed_s,
           CAST(sum(seconds) FILTER (WHERE kind = 'draining') AS float8) AS draining_s,
           (SELECT CAST(sum(prompt_tokens) AS bigint) FROM usage) AS prompt_tokens,
           (SELECT CAST(sum(num_running * seconds) / sum(seconds) AS float8) FROM worker_samples WHERE num_running > 0)
               AS running
    FROM (
        SELECT kind, nanodollars_per_hour, nanodollars * 3600.0 / nanodollars_per_hour AS seconds
        FROM ledger_entries JOIN incarnations ON incarnations.id = incarnation_id
    ) AS spent
""")
_LOADED = text("""
    SELECT CAST(percentile_cont(0.5) WITHIN GROUP (ORDER BY extract(epoch FROM started_at - ordered_at)) AS float8)
               AS registers_in_s,
           CAST(percentile_cont(0.5) WITHIN GROUP (ORDER BY extract(epoch FROM ready_at - ordered_at)) AS float8)
               AS ready_in_s
    FROM fleet_workers JOIN incarnations USING (worker) WHERE ready_at IS NOT NULL
""")
_HELD = text("""
    SELECT (SELECT max(room_tokens) FROM incarnations) AS room_tokens,
           (SELECT CAST(avg(estimated_tokens) AS float8) FROM jobs) AS estimated_tokens,
           (SELECT count(*) FROM shards) AS shards, (SELECT count(*) FROM shards WHERE runs_alone) AS ran_alone,
           CAST(avg(held) AS float8) AS jobs_held
    FROM (
        SELECT (
            SELECT count(*) FROM attempts
            WHERE incarnation_id = taken.incarnation_id AND started_at <= taken.ended_at AND ended_at >= taken.ended_at
        ) AS held
        FROM (
            SELECT incarnation_id, max(ended_at) AS ended_at FROM attempts WHERE outcome IN ('preempted', 'lost')
            GROUP BY incarnation_id
        ) AS taken
    ) AS each
""")


@dataclass(frozen=True, slots=True)
class Kill:
    """A worker that was taken. `at` is Unix time."""

    pid: int
    with_notice: bool
    at: float


def facts(connection: Connection, batch: str, num_jobs: int, kills: Sequence[Kill], began: float) -> dict[str, Any]:
    """Returns what Postgres says about a batch that began at a moment and the workers that were taken."""
    spent = dict(
        connection.execute(text("SELECT kind, CAST(sum(nanodollars) AS bigint) FROM ledger_entries GROUP BY 1")).all()
    )
    total = sum(spent.values())
    tokens = connection.execute(
        text(
            "SELECT CAST(sum(completion_tokens) AS bigint) AS generated, CAST(sum(recomputed_tokens) AS bigint) AS"
            " recomputed FROM usage"
        )
    ).one()
    wasted = spent.get("recomputed", 0) + spent.get("lost", 0) + spent.get("duplicate", 0)
    return {
        "kills": len(kills),
        "kills_with_notice": sum(kill.with_notice for kill in kills),
        "settled": count(connection, "SELECT count(DISTINCT job_id) FROM results"),
        "lost_results": num_jobs - count(connection, "SELECT count(*) FROM results"),
        "settled_twice": count(
            connection,
            "SELECT count(*) FROM (SELECT job_id FROM attempts WHERE outcome = 'settled' GROUP BY job_id"
            " HAVING count(*) > 1) AS twice",
        ),
        "doubled_tokens": doubled_tokens(connection),
        "verdicts": dict(
            connection.execute(text("SELECT coalesce(verdict, state), count(*) FROM jobs GROUP BY 1")).all()
        ),
        "attempts": dict(connection.execute(text("SELECT outcome, count(*) FROM attempts GROUP BY 1")).all()),
        "incarnations": count(connection, "SELECT count(*) FROM incarnations"),
        "unbalanced_ledgers": unbalanced(connection),
        "generated_tokens": tokens.generated,
        "recomputed_tokens": tokens.recomputed,
        "nanodollars": total,
        "share_of_dollars": {kind: round(amount / total, 4) for kind, amount in sorted(spent.items())},
        "wasted_share": round(wasted / total, 4),
        "wasted_share_with_loading": round((wasted + spent.get("loading", 0)) / total, 4),
        "recovery": {
            name: recovery(connection, [kill for kill in kills if kill.with_notice is with_notice])
            for name, with_notice in (("with_notice", True), ("without_notice", False))
        },
        "batch": batch,
        "taken": [{"at_s": round(kill.at - began, 1), "with_notice": kill.with_notice} for kill in kills],
        "measured": measured(connection),
    }


def measured(connection: Connection) -> dict[str, Any]:
    """Returns what a simulation of the run has to know: speeds, times and lengths."""
    return {
        **connection.execute(_SPEEDS).mappings().one(),
        **connection.execute(_LOADED).mappings().one(),
        **connection.execute(_HELD).mappings().one(),
        "sample_tokens": sample_tokens(connection),
    }


def sample_tokens(connection: Connection) -> list[int]:
    """Returns the percentiles of the lengths of all samples, from 0 to 100."""
    trees = connection.execute(text("SELECT tree FROM search_trees")).scalars()
    lengths = sorted(len(node["ids"]) for tree in trees for node in tree["nodes"][1:])
    return [lengths[round(part / 100 * (len(lengths) - 1))] for part in range(101)]


def doubled_tokens(connection: Connection) -> int:
    """Returns by how many tokens the bills of jobs differ from their trees, which hold every token once."""
    rows = connection.execute(text("SELECT completion_tokens, tree FROM usage JOIN search_trees USING (job_id)"))
    return sum(abs(row.completion_tokens - sum(len(node["ids"]) for node in row.tree["nodes"][1:])) for row in rows)


def unbalanced(connection: Connection) -> int:
    """Returns the number of incarnations whose entries differ from their bill."""
    number = 0
    for (incarnation_id,) in connection.execute(text("SELECT id FROM incarnations")).all():
        try:
            check(connection, incarnation_id)
        except LedgerImbalance:
            number += 1
    return number


def recovery(connection: Connection, kills: Sequence[Kill]) -> dict[str, Any]:
    """Returns the times from the end of workers until others had gone on with all of their jobs, in seconds.

    A worker that held nothing, or whose jobs had all been settled, has none.
    """
    found = [connection.execute(_RECOVERY, {"pid": kill.pid}).scalar() for kill in kills]
    times = [resumed_at - kill.at for kill, resumed_at in zip(kills, found, strict=True) if resumed_at is not None]
    return {"kills": len(kills)} | percentiles(times)


def percentiles(times_s: Sequence[float]) -> dict[str, Any]:
    if not times_s:
        return {"of": 0}
    times_s = sorted(times_s)
    p95 = times_s[min(len(times_s) - 1, int(0.95 * len(times_s)))]
    return {"of": len(times_s), "p50_s": round(statistics.median(times_s), 1), "p95_s": round(p95, 1)}


def count(connection: Connection, statement: str) -> int:
    return int(connection.execute(text(statement)).scalar_one())
