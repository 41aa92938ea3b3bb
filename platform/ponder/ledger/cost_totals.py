"""Sums of costs by batch, model, strategy and level, so that reports need not read every job and ledger entry.

A job's loaded cost depends on the overhead of the hours in which workers computed it, which grows while they last. So a
cell keeps what its jobs cost directly by worker and hour, and, for the squares that intervals need, the sums of the
products of such costs within a job. Readers multiply them by each hour's overhead of the moment.

Each job's own cost is kept beside, so that the jobs of a batch can be sorted by it.

Jobs are folded in the order of their numbers, once their last attempt has ended. What a worker books for a job that it
no longer holds comes too late for that and is appended as a late cost.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

from sqlalchemy import Connection, text

from ponder.store.document import dumps
from ponder.store.folding import lock_folding

_FOLDING = 0x636F7374  # "cost"
_JOBS = 1_000
"""The most jobs that are folded in one transaction."""
_BATCHES = 10
"""The most batches that they are of."""
_HOUR = "date_trunc('hour', until_at, 'UTC')"
IS_COMPARED = "(coalesce(verdict, '') IN ('passed', 'failed') AND coalesce(checked, '') IN ('passed', 'failed'))"
"""SQL for whether a judge and the reference have both called a job's answer right or wrong."""
IS_AGREED = f"({IS_COMPARED} AND verdict = checked)"
"""SQL for whether both say the same."""

_BEGIN = text("""
    INSERT INTO cost_totals (batch_id, model, strategy, level, num_jobs, num_oracle, num_by_judge)
    SELECT batch_id, model, strategy, level, count(*), count(*) FILTER (WHERE oracle), count(*) FILTER (WHERE judged)
    FROM jobs WHERE batch_id = :batch_id GROUP BY batch_id, model, strategy, level
""")

_LATE = text("""
    INSERT INTO late_costs (job_id, worker, hour, nanodollars)
    SELECT job_id, (SELECT worker FROM incarnations WHERE id = :incarnation_id),
           date_trunc('hour', CAST(:until AS timestamptz), 'UTC'), nanodollars
    FROM json_to_recordset(CAST(:costs AS json)) AS cost(job_id bigint, nanodollars bigint)
""")

_FOLD_HOURS = text("""
    WITH taken AS (
        DELETE FROM hour_tallies WHERE id IN (SELECT id FROM hour_tallies ORDER BY id LIMIT 10000) RETURNING *
    )
    INSERT INTO hour_totals AS total (worker, hour, direct_nanodollars, overhead_nanodollars)
    SELECT worker, hour, sum(direct_nanodollars), sum(overhead_nanodollars)
    FROM taken GROUP BY worker, hour ORDER BY worker, hour
    ON CONFLICT (worker, hour) DO UPDATE SET
        direct_nanodollars = total.direct_nanodollars + excluded.direct_nanodollars,
        overhead_nanodollars = total.overhead_nanodollars + excluded.overhead_nanodollars
""")

# Of some batches, the jobs before the first one that a worker may still book for as its holder.
_NEXT = text(f"""
    WITH lagging AS (
        SELECT batch_id, num_costed FROM batch_totals
        WHERE num_costed < num_completed + num_failed + num_expired + num_cancelled AND NOT EXISTS (
            SELECT FROM result_runs JOIN attempts
                ON attempts.job_id = job_ids[num_costed + 1 - last_number + cardinality(job_ids)]
            WHERE result_runs.batch_id = batch_totals.batch_id AND last_number > num_costed
              AND last_number - cardinality(job_ids) <= num_costed AND ended_at IS NULL
        )
        LIMIT {_BATCHES}
    ), waiting AS MATERIALIZED (
        SELECT batch_id, number, job_id FROM lagging CROSS JOIN LATERAL (
            SELECT last_number - cardinality(job_ids) + place AS number, job_id
            FROM result_runs CROSS JOIN LATERAL unnest(job_ids) WITH ORDINALITY AS settled(job_id, place)
            WHERE result_runs.batch_id = lagging.batch_id AND last_number > num_costed
              AND last_number < num_costed + 2 * {_JOBS} AND last_number - cardinality(job_ids) + place > num_costed
            ORDER BY number LIMIT {_JOBS}
        ) AS numbered
        ORDER BY batch_id, number LIMIT {_JOBS}
    ), held AS (
        SELECT batch_id, min(number) AS number FROM waiting JOIN attempts USING (job_id)
        WHERE ended_at IS NULL GROUP BY batch_id
    )
    SELECT waiting.batch_id, max(waiting.number) AS number, array_agg(job_id) AS job_ids
    FROM waiting LEFT JOIN held ON held.batch_id = waiting.batch_id
    WHERE waiting.number < held.number OR held.number IS NULL
    GROUP BY waiting.batch_id ORDER BY waiting.batch_id
""")

_COSTED = text("UPDATE batch_totals SET num_costed = :number WHERE batch_id = :batch_id")

# What was booked too late is added by itself.
_FOLD = text(f"""
    WITH job AS MATERIALIZED (
        SELECT jobs.id, batch_id, line, model, strategy, level, state, verdict, checked, judged, completion_tokens,
               CAST(verdict = 'passed' AND verdict IS NOT NULL AS int) AS is_passed
        FROM jobs LEFT JOIN usage ON usage.job_id = jobs.id WHERE jobs.id = ANY(CAST(:job_ids AS bigint[]))
    ), cell AS (
        INSERT INTO cost_totals AS total (batch_id, model, strategy, level, num_settled, num_passed,
                                          num_passed_by_judge, num_compared, num_agreed, num_verdicts, num_failed,
                                          completion_tokens)
        SELECT batch_id, model, strategy, level, count(*), sum(is_passed),
               count(*) FILTER (WHERE verdict = 'passed' AND judged),
               count(*) FILTER (WHERE {IS_COMPARED}), count(*) FILTER (WHERE {IS_AGREED}),
               count(*) FILTER (WHERE verdict IN ('passed', 'failed')), count(*) FILTER (WHERE state = 'failed'),
               coalesce(sum(completion_tokens), 0)
        FROM job GROUP BY batch_id, model, strategy, level ORDER BY batch_id, model, strategy, level
        ON CONFLICT (batch_id, model, strategy, level) DO UPDATE SET
            num_settled = total.num_settled + excluded.num_settled,
            num_passed = total.num_passed + excluded.num_passed,
            num_passed_by_judge = total.num_passed_by_judge + excluded.num_passed_by_judge,
            num_compared = total.num_compared + excluded.num_compared,
            num_agreed = total.num_agreed + excluded.num_agreed,
            num_verdicts = total.num_verdicts + excluded.num_verdicts,
            num_failed = total.num_failed + excluded.num_failed,
            completion_tokens = total.completion_tokens + excluded.completion_tokens
        RETURNING id, batch_id, model, strategy, level
    ), booked AS (
        SELECT job_id, worker, {_HOUR} AS hour, nanodollars
        FROM ledger_entries JOIN incarnations ON incarnations.id = incarnation_id
        WHERE job_id = ANY(CAST(:job_ids AS bigint[]))
        UNION ALL
        SELECT job_id, worker, hour, -nanodollars FROM late_costs WHERE job_id = ANY(CAST(:job_ids AS bigint[]))
    ), spent AS MATERIALIZED (
        SELECT cell.id AS cell_id, job_id, is_passed, worker, hour, sum(nanodollars) AS nanodollars
        FROM booked JOIN job ON job.id = job_id
        JOIN cell ON (cell.batch_id, cell.model, cell.strategy) = (job.batch_id, job.model, job.strategy)
                 AND cell.level IS NOT DISTINCT FROM job.level
        GROUP BY cell.id, job_id, is_passed, worker, hour HAVING sum(nanodollars) <> 0
    ), listed AS (
        INSERT INTO settled_jobs (batch_id, line, job_id, state, verdict, level, tokens, nanodollars)
        SELECT batch_id, line, id, state, verdict, level, coalesce(completion_tokens, 0), coalesce(nanodollars, 0)
        FROM job LEFT JOIN (
            SELECT job_id, sum(nanodollars) AS nanodollars FROM spent GROUP BY job_id
        ) AS cost ON job_id = id
        ORDER BY batch_id, line
    ), hours AS (
        INSERT INTO cost_hours AS total (cell_id, worker, hour, nanodollars, passed_nanodollars)
        SELECT cell_id, worker, hour, sum(nanodollars), sum(nanodollars * is_passed)
        FROM spent GROUP BY cell_id, worker, hour ORDER BY cell_id, worker, hour
        ON CONFLICT (cell_id, worker, hour) DO UPDATE SET
            nanodollars = total.nanodollars + excluded.nanodollars,
            passed_nanodollars = total.passed_nanodollars + excluded.passed_nanodollars
    )
    INSERT INTO cost_products AS total (cell_id, worker, hour, other_worker, other_hour, product)
    SELECT one.cell_id, one.worker, one.hour, other.worker, other.hour,
           sum(one.nanodollars * other.nanodollars
               * CASE WHEN (one.worker, one.hour) = (other.worker, other.hour) THEN 1 ELSE 2 END)
    FROM spent AS one JOIN spent AS other
      ON other.job_id = one.job_id AND (one.worker, one.hour) <= (other.worker, other.hour)
    GROUP BY 1, 2, 3, 4, 5 ORDER BY 1, 2, 3, 4, 5
    ON CONFLICT (cell_id, worker, hour, other_worker, other_hour) DO UPDATE SET
        product = total.product + excluded.product
""")

# Only of batches whose settled jobs are all folded: whether another job is would take a search.
_FOLD_LATE = text(f"""
    WITH taken AS (
        DELETE FROM late_costs WHERE id IN (
            SELECT late_costs.id FROM late_costs JOIN jobs ON jobs.id = job_id JOIN batch_totals USING (batch_id)
            WHERE jobs.state <> 'pending'
              AND num_costed = num_completed + num_failed + num_expired + num_cancelled
              AND NOT EXISTS (SELECT FROM tallies WHERE tallies.batch_id = jobs.batch_id AND job_ids <> '{{}}')
            ORDER BY late_costs.job_id LIMIT {_JOBS}
        )
        RETURNING *
    ), late AS (
        SELECT job_id, worker, hour, sum(nanodollars) AS nanodollars FROM taken GROUP BY job_id, worker, hour
    ), listed AS (
        UPDATE settled_jobs SET nanodollars = settled_jobs.nanodollars + added.nanodollars
        FROM (
            SELECT jobs.batch_id, jobs.line, sum(nanodollars) AS nanodollars
            FROM late JOIN jobs ON jobs.id = job_id GROUP BY jobs.batch_id, jobs.line
        ) AS added
        WHERE settled_jobs.batch_id = added.batch_id AND settled_jobs.line = added.line
    ), job AS (
        SELECT jobs.id, cell.id AS cell_id, CAST(verdict = 'passed' AND verdict IS NOT NULL AS int) AS is_passed
        FROM jobs JOIN cost_totals AS cell
          ON (cell.batch_id, cell.model, cell.strategy) = (jobs.batch_id, jobs.model, jobs.strategy)
         AND cell.level IS NOT DISTINCT FROM jobs.level
        WHERE jobs.id IN (SELECT job_id FROM late)
    ), booked AS (
        SELECT job_id, worker, {_HOUR} AS hour, nanodollars
        FROM ledger_entries JOIN incarnations ON incarnations.id = incarnation_id
        WHERE job_id IN (SELECT job_id FROM late)
        UNION ALL
        -- Those that this round did not take, which another will add.
        SELECT job_id, worker, hour, -nanodollars FROM late_costs
        WHERE job_id IN (SELECT job_id FROM late) AND id NOT IN (SELECT id FROM taken)
    ), spent AS MATERIALIZED (
        SELECT cell_id, job_id, worker, hour, sum(booked.nanodollars) AS nanodollars,
               sum(booked.nanodollars) - coalesce(max(late.nanodollars), 0) AS before
        FROM booked JOIN job ON job.id = job_id LEFT JOIN late USING (job_id, worker, hour)
        GROUP BY cell_id, job_id, worker, hour
    ), hours AS (
        INSERT INTO cost_hours AS total (cell_id, worker, hour, nanodollars, passed_nanodollars)
        SELECT cell_id, worker, hour, sum(nanodollars), sum(nanodollars * is_passed)
        FROM late JOIN job ON job.id = job_id GROUP BY cell_id, worker, hour ORDER BY cell_id, worker, hour
        ON CONFLICT (cell_id, worker, hour) DO UPDATE SET
            nanodollars = total.nanodollars + excluded.nanodollars,
            passed_nanodollars = total.passed_nanodollars + excluded.passed_nanodollars
    )
    INSERT INTO cost_products AS total (cell_id, worker, hour, other_worker, other_hour, product)
    SELECT one.cell_id, one.worker, one.hour, other.worker, other.hour,
           sum((one.nanodollars * other.nanodollars - one.before * other.before)
               * CASE WHEN (one.worker, one.hour) = (other.worker, other.hour) THEN 1 ELSE 2 END)
    FROM spent AS one JOIN spent AS other
      ON other.job_id = one.job_id AND (one.worker, one.hour) <= (other.worker, other.hour)
    GROUP BY 1, 2, 3, 4, 5 ORDER BY 1, 2, 3, 4, 5
    ON CONFLICT (cell_id, worker, hour, other_worker, other_hour) DO UPDATE SET
        product = total.product + excluded.product
""")


def begin_costs(connection: Connection, batch_id: str) -> None:
    """Makes the cells of a new batch's jobs, once and for all."""
    connection.execute(_BEGIN, {"batch_id": batch_id})


def add_late(connection: Connection, incarnation_id: str, until: datetime, costs: Mapping[int, int]) -> None:
    """Appends what an incarnation booked at `until` for jobs that it does not hold, in nano-dollars by job."""
    if costs:
        rows = [{"job_id": job_id, "nanodollars": nanodollars} for job_id, nanodollars in costs.items()]
        connection.execute(_LATE, {"incarnation_id": incarnation_id, "until": until, "costs": dumps(rows)})


def hours_among(pairs: str) -> str:
    """Returns SQL for those rows of the view `worker_hours` whose worker and hour are in a relation, once each.

    The view itself would add up the hours of all workers that there ever were.
    """
    return f"""
        SELECT worker, hour, sum(direct_nanodollars) AS direct_nanodollars,
               sum(overhead_nanodollars) AS overhead_nanodollars
        FROM (
            SELECT worker, hour, total.* FROM {pairs} CROSS JOIN LATERAL (
                SELECT direct_nanodollars, overhead_nanodollars FROM hour_totals
                WHERE hour_totals.worker = {pairs}.worker AND hour_totals.hour = {pairs}.hour
                OFFSET 0  -- keeps the planner from reading them all
            ) AS total
            UNION ALL
            SELECT worker, hour, direct_nanodollars, overhead_nanodollars
            FROM {pairs} JOIN hour_tallies USING (worker, hour)
        ) AS added
        GROUP BY worker, hour
    """


def fold_costs(connection: Connection) -> bool:
    """Folds up to 1,000 settled jobs, the overhead of hours, and late costs. Returns whether more may be waiting.

    Only another dispatcher ever waits for this.
    """
    lock_folding(connection, _FOLDING)
    connection.execute(_FOLD_HOURS)
    folded = connection.execute(_NEXT).all()
    for batch in folded:
        connection.execute(_FOLD, {"job_ids": batch.job_ids})
        connection.execute(_COSTED, {"batch_id": batch.batch_id, "number": batch.number})
    connection.execute(_FOLD_LATE)
    return bool(folded)
