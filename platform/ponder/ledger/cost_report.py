"""Reports the cost of tasks and of successful ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from sqlalchemy import Connection, Row, text

from ponder.errors import InvalidInput

Dimension = Literal["tenant", "batch", "model", "strategy", "level", "market", "machine"]
DIMENSIONS: tuple[Dimension, ...] = ("tenant", "batch", "model", "strategy", "level", "market", "machine")

_COLUMNS: dict[Dimension, str] = {
    "tenant": "jobs.tenant_id",
    "batch": "jobs.batch_id",
    "model": "jobs.model",
    "strategy": "jobs.strategy",
    "level": "jobs.level",
    "market": "place.market",
    "machine": "place.machine",
}


@dataclass(frozen=True, slots=True)
class CostRow:
    """One group. Its direct cost is that of its own work; the loaded cost adds a share of idle, loading and lost time.

    By market or machine, costs count where they arose, and jobs where they were settled.
    """

    group: dict[Dimension, str | None]
    num_jobs: int
    num_settled: int
    num_passed: int
    num_oracle: int
    """Jobs whose search may have been told what the reference says. Their accuracy is not comparable with others'."""
    accuracy: float | None
    """Passed jobs divided by judged ones (passed and failed verdicts, and failed jobs), or None without any verdict."""
    completion_tokens: int
    tokens_per_job: float | None
    """Generated tokens per settled job."""
    direct_nanodollars: int
    loaded_nanodollars: int
    nanodollars_per_job: float | None
    """Loaded cost per settled job."""
    cost_per_successful_task: float | None
    """Loaded nano-dollars per passed job, failures included, or None if nothing passed."""


# A job was settled or last tried at one place, but its cost may have arisen at several.
_LAST_PLACE = """
    LEFT JOIN LATERAL (
        SELECT market, machine FROM attempts JOIN incarnations ON incarnations.id = attempts.incarnation_id
        WHERE attempts.job_id = jobs.id ORDER BY attempts.id DESC LIMIT 1
    ) AS place ON true"""

_REPORT = """
    WITH counted AS (
        SELECT {columns}
               1 AS is_job,
               CAST(jobs.state <> 'pending' AS int) AS is_settled,
               CAST(coalesce(verdict, '') = 'passed' AS int) AS is_passed,
               CAST(coalesce(verdict, '') IN ('passed', 'failed') AS int) AS has_verdict,
               CAST(jobs.state = 'failed' AS int) AS is_failed,
               CAST(jobs.oracle AS int) AS is_oracle,
               coalesce(completion_tokens, 0) AS completion_tokens,
               0 AS direct_nanodollars,
               0 AS loaded_nanodollars
        FROM jobs LEFT JOIN usage ON usage.job_id = jobs.id {last_place}
        WHERE {chosen}
        UNION ALL
        SELECT {columns}
               0, 0, 0, 0, 0, 0, 0, place.direct_nanodollars, place.loaded_nanodollars
        FROM job_costs AS place JOIN jobs ON jobs.id = place.job_id
        WHERE {chosen}
    )
    SELECT {groups}
           sum(is_job) AS num_jobs, sum(is_settled) AS num_settled, sum(is_passed) AS num_passed,
           sum(has_verdict) AS num_verdicts, sum(is_failed) AS num_failed, sum(is_oracle) AS num_oracle,
           sum(completion_tokens) AS completion_tokens,
           sum(direct_nanodollars) AS direct_nanodollars, sum(loaded_nanodollars) AS loaded_nanodollars
    FROM counted {grouping}
"""


_UNASSIGNED = text("""
    SELECT CAST(coalesce(sum(overhead_nanodollars), 0) AS bigint) FROM worker_hours WHERE direct_nanodollars = 0
""")


def cost_report(
    connection: Connection,
    tenant_id: str | None,
    by: Sequence[Dimension] = (),
    batch_ids: Sequence[str] | None = None,
) -> list[CostRow]:
    """Returns one row per group, in order, or a single row without `by`. `tenant_id` None means all tenants."""
    unknown = [dimension for dimension in by if dimension not in _COLUMNS]
    if unknown:
        raise InvalidInput(f"a report can go by {', '.join(DIMENSIONS)}, not by {', '.join(unknown)}", param="by")
    dimensions = list(dict.fromkeys(by))
    rows = connection.execute(text(_statement(dimensions)), {"tenant_id": tenant_id, "batch_ids": batch_ids})
    return [_row(row, dimensions) for row in rows if row.num_jobs is not None]


def unassigned(connection: Connection) -> int:
    """Returns the overhead, in nano-dollars, of hours in which a worker served nobody, so that no job bears it.

    Together with the loaded cost of all tenants' jobs it is the bill of all workers.
    """
    return int(connection.execute(_UNASSIGNED).scalar_one())


def _statement(dimensions: Sequence[Dimension]) -> str:
    """Builds the query. Only words of `_COLUMNS` enter the text."""
    names = [f"group_{dimension}" for dimension in dimensions]
    groups = ", ".join(names)
    return _REPORT.format(
        columns="".join(f"{_COLUMNS[dimension]} AS group_{dimension}, " for dimension in dimensions),
        last_place=_LAST_PLACE if {"market", "machine"} & set(dimensions) else "",
        chosen="""(CAST(:tenant_id AS text) IS NULL OR jobs.tenant_id = :tenant_id)
          AND (CAST(:batch_ids AS text[]) IS NULL OR jobs.batch_id = ANY(CAST(:batch_ids AS text[])))""",
        groups=f"{groups}," if names else "",
        grouping=f"GROUP BY {groups} ORDER BY {groups}" if names else "",
    )


def _row(row: Row[Any], dimensions: Sequence[Dimension]) -> CostRow:
    loaded = row.loaded_nanodollars
    judged = row.num_verdicts + row.num_failed
    return CostRow(
        group={dimension: getattr(row, f"group_{dimension}") for dimension in dimensions},
        num_jobs=int(row.num_jobs),
        num_settled=int(row.num_settled),
        num_passed=int(row.num_passed),
        num_oracle=int(row.num_oracle),
        accuracy=row.num_passed / judged if row.num_verdicts else None,
        completion_tokens=int(row.completion_tokens),
        tokens_per_job=float(row.completion_tokens / row.num_settled) if row.num_settled else None,
        direct_nanodollars=int(row.direct_nanodollars),
        loaded_nanodollars=round(loaded),
        nanodollars_per_job=float(loaded / row.num_settled) if row.num_settled else None,
        cost_per_successful_task=float(loaded / row.num_passed) if row.num_passed else None,
    )
