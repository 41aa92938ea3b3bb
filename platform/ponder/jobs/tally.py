"""Counts and sums of each batch, by day and over its time, and the numbers of settled jobs, without counting jobs.

Settling jobs and booking costs append a tally in the same transaction. The dispatcher folds tallies into totals and
numbers their jobs, so numbers follow the order of commits: once a number can be read, all smaller ones can.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, fields

from sqlalchemy import Connection, text

from ponder.errors import NotFound
from ponder.ledger.cost_totals import begin_costs
from ponder.store.folding import lock_folding

RUN_LENGTH = 1_000
"""The most jobs of one row of `result_runs`."""
_FOLDING = 0x74616C6C79  # "tally"
_AT_A_TIME = 10_000


@dataclass(frozen=True, slots=True)
class Totals:
    """The counts and sums of a batch. Tokens are those of settled jobs, and verdicts those of completed ones."""

    num_completed: int = 0
    num_failed: int = 0
    num_expired: int = 0
    num_cancelled: int = 0
    num_rejected: int = 0
    num_oracle: int = 0
    num_by_judge: int = 0
    num_passed: int = 0
    num_passed_by_judge: int = 0
    num_judged_wrong: int = 0
    num_unverified: int = 0
    prompt_tokens: int = 0
    cached_tokens: int = 0
    completion_tokens: int = 0
    thinking_tokens: int = 0
    judge_tokens: int = 0
    direct_nanodollars: int = 0
    generated_tokens: int = 0
    """Also those that running jobs have saved; each token once."""
    settled_nanodollars: int = 0
    """The direct cost of settled jobs."""

    @property
    def num_settled(self) -> int:
        return self.num_completed + self.num_failed + self.num_expired + self.num_cancelled


@dataclass(frozen=True, slots=True)
class Numbered:
    """How far the settled jobs of a batch are numbered."""

    num_settled: int
    is_begun: bool
    """Whether the batch is validated, so that all of its refused lines are known."""
    is_final: bool
    """Whether the batch has ended and no number will follow."""


_SUMS = tuple(column.name for column in fields(Totals))
_DAY_SUMS = ("num_completed", "num_failed", "direct_nanodollars", "generated_tokens", "settled_nanodollars")
"""The sums that are also kept of each tenant, key and day, for their budgets (see `ledger/spending.py`)."""
HISTORY_SUMS = (
    "num_completed", "num_failed", "num_passed", "num_judged_wrong", "num_unverified", "prompt_tokens",
    "generated_tokens", "direct_nanodollars",
)  # fmt: skip
"""The sums that are also kept of each stretch of a batch's time."""
STRETCHES = ((20 * 60, 5), (4 * 3_600, 60))
LONGEST_STRETCH_S = 600
"""Until so many seconds after a batch's beginning, a stretch has so many; after that the longest. So there are never
many, and enough of a batch that is soon done.
"""
STARTED_AT = "coalesce(in_progress_at, created_at)"
_SHORTER = " ".join(
    f"WHEN at < {STARTED_AT} + interval '{until_s} seconds' THEN {seconds}" for until_s, seconds in STRETCHES
)
_STRETCH = f"date_bin(make_interval(secs => CASE {_SHORTER} ELSE {LONGEST_STRETCH_S} END), at, 'epoch')"
_ADDED = ", ".join(f"CAST(sum({name}) AS bigint) AS {name}" for name in _SUMS)

_BEGUN = text("""
    INSERT INTO tallies (batch_id, num_rejected, num_oracle, num_by_judge)
    SELECT :batch_id, (SELECT count(*) FROM rejected_lines WHERE batch_id = :batch_id),
           count(*) FILTER (WHERE oracle), count(*) FILTER (WHERE judged)
    FROM jobs WHERE batch_id = :batch_id AND (oracle OR judged)
""")

_TOTALS = text(f"""
    SELECT batch_id, {_ADDED}
    FROM (
        SELECT batch_id, {", ".join(_SUMS)} FROM batch_totals WHERE batch_id = ANY(CAST(:batch_ids AS text[]))
        UNION ALL
        SELECT batch_id, {", ".join(_SUMS)} FROM tallies WHERE batch_id = ANY(CAST(:batch_ids AS text[]))
    ) AS added
    GROUP BY batch_id
""")

_FOLD = text(f"""
    WITH taken AS (
        DELETE FROM tallies WHERE id IN (SELECT id FROM tallies ORDER BY id LIMIT {_AT_A_TIME}) RETURNING *
    ), numbered AS (
        SELECT taken.batch_id, job_id,
               coalesce(num_numbered, 0) + row_number() OVER (PARTITION BY taken.batch_id ORDER BY id, place) AS number
        FROM taken CROSS JOIN LATERAL unnest(job_ids) WITH ORDINALITY AS settled(job_id, place)
        LEFT JOIN (
            SELECT batch_id, num_completed + num_failed + num_expired + num_cancelled AS num_numbered FROM batch_totals
        ) AS before ON before.batch_id = taken.batch_id
    ), run AS (
        INSERT INTO result_runs (batch_id, last_number, job_ids)
        SELECT batch_id, max(number), array_agg(job_id ORDER BY number)
        FROM numbered GROUP BY batch_id, (number - 1) / {RUN_LENGTH}
    ), total AS (
        INSERT INTO batch_totals AS total (batch_id, {", ".join(_SUMS)})
        SELECT batch_id, {_ADDED} FROM taken GROUP BY batch_id ORDER BY batch_id
        ON CONFLICT (batch_id) DO UPDATE SET {", ".join(f"{name} = total.{name} + excluded.{name}" for name in _SUMS)}
    ), dated AS (
        INSERT INTO day_totals AS total (tenant_id, key_id, day, {", ".join(_DAY_SUMS)})
        SELECT tenant_id, key_id, day, {", ".join(f"CAST(sum({name}) AS bigint)" for name in _DAY_SUMS)}
        FROM taken JOIN batches ON batches.id = batch_id GROUP BY tenant_id, key_id, day
        ON CONFLICT (tenant_id, key_id, day)
        DO UPDATE SET {", ".join(f"{name} = total.{name} + excluded.{name}" for name in _DAY_SUMS)}
    ), history AS (
        INSERT INTO batch_history AS total (batch_id, begin_at, {", ".join(HISTORY_SUMS)})
        SELECT batch_id, {_STRETCH}, {", ".join(f"CAST(sum({name}) AS bigint)" for name in HISTORY_SUMS)}
        FROM taken JOIN batches ON batches.id = batch_id GROUP BY 1, 2 ORDER BY 1, 2
        ON CONFLICT (batch_id, begin_at)
        DO UPDATE SET {", ".join(f"{name} = total.{name} + excluded.{name}" for name in HISTORY_SUMS)}
    )
    SELECT count(*) FROM taken
""")

_NUMBERED = text("""
    SELECT coalesce(num_completed + num_failed + num_expired + num_cancelled, 0) AS num_settled,
           state <> 'validating' AS is_begun,
           state IN ('completed', 'failed', 'expired', 'cancelled') AND followed_line IS NULL
               AND NOT EXISTS (SELECT FROM tallies WHERE batch_id = batches.id AND job_ids <> '{}') AS is_final
    FROM batches LEFT JOIN batch_totals ON batch_totals.batch_id = batches.id
    WHERE batches.id = :batch_id AND tenant_id = :tenant_id
""")

# One text instead of a row for each job, which the driver would read one by one.
_PAGE = text("""
    SELECT string_agg(CAST(job_id AS text), ' ' ORDER BY number) AS job_ids FROM (
        SELECT last_number - cardinality(job_ids) + place AS number, job_id
        FROM result_runs CROSS JOIN LATERAL unnest(job_ids) WITH ORDINALITY AS settled(job_id, place)
        WHERE batch_id = :batch_id AND last_number > :after AND last_number < :until
          AND last_number - cardinality(job_ids) + place > :after
          AND EXISTS (SELECT FROM batches WHERE id = :batch_id AND tenant_id = :tenant_id)
        ORDER BY number LIMIT :limit
    ) AS numbered
""")


def tally_lines(connection: Connection, batch_id: str) -> None:
    """Counts the rejected lines and the jobs of a new batch, once and for all."""
    connection.execute(_BEGUN, {"batch_id": batch_id})
    begin_costs(connection, batch_id)


def totals(connection: Connection, batch_ids: Collection[str]) -> dict[str, Totals]:
    """Returns the totals by batch, folded or not, without batches that have none."""
    rows = connection.execute(_TOTALS, {"batch_ids": sorted(batch_ids)})
    return {row.batch_id: Totals(**{name: row._mapping[name] for name in _SUMS}) for row in rows}


def tally(connection: Connection) -> bool:
    """Folds up to 10,000 tallies into totals and numbers their jobs. Returns whether more may be waiting.

    Only another dispatcher ever waits for this.
    """
    lock_folding(connection, _FOLDING)
    return int(connection.execute(_FOLD).scalar_one()) == _AT_A_TIME


def numbered(connection: Connection, tenant_id: str, batch_id: str) -> Numbered:
    """Raises NotFound."""
    row = connection.execute(_NUMBERED, {"batch_id": batch_id, "tenant_id": tenant_id}).one_or_none()
    if row is None:
        raise NotFound(f"there is no batch {batch_id}", param="batch_id")
    return Numbered(**row._mapping)


def settled_after(connection: Connection, tenant_id: str, batch_id: str, after: int, limit: int) -> dict[int, int]:
    """Returns up to `limit` settled jobs in order, by number, from `after` + 1 on. Numbers begin at 1."""
    values = {"tenant_id": tenant_id, "batch_id": batch_id, "after": after, "limit": limit}
    values["until"] = after + limit + RUN_LENGTH
    job_ids = connection.execute(_PAGE, values).scalar() or ""
    return dict(enumerate(map(int, job_ids.split()), start=after + 1))
