"""Reports the cost of tasks and of successful ones."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Row, text

from ponder.ledger.cost_totals import IS_AGREED, IS_COMPARED, hours_among
from ponder.ledger.interval import Interval, Sums, ratio_interval, share_interval
from ponder.ledger.reporting import Group, Selection


@dataclass(frozen=True, slots=True)
class CostRow:
    """One group. Its direct cost is that of its own work; the loaded cost adds a share of idle, loading and lost time.

    By worker_model, market, machine, day or hour, costs count where and when they arose, and jobs where and when they
    were settled.
    """

    group: Group
    num_jobs: int
    num_settled: int
    num_passed: int
    num_oracle: int
    """Jobs whose search may have been told what the reference says. Their accuracy is not comparable with others'."""
    num_by_judge: int
    """Jobs whose verdict is a model's."""
    num_passed_by_judge: int
    """Passed jobs whose verdict is a model's."""
    num_compared: int
    """Jobs that both a judge and a comparison with the reference called right or wrong."""
    agreement: float | None
    """The share of these on which both say the same, or None without any."""
    accuracy: float | None
    """Passed jobs divided by judged ones (passed and failed verdicts, and failed jobs), or None without any verdict."""
    accuracy_interval: Interval | None
    completion_tokens: int
    tokens_per_job: float | None
    """Generated tokens per settled job."""
    direct_nanodollars: int
    loaded_nanodollars: int
    nanodollars_per_job: float | None
    """Loaded cost per settled job."""
    cost_per_successful_task: float | None
    """Loaded nano-dollars per passed job, failures included, or None if nothing passed."""
    sums: Sums
    """Sums over the jobs that were settled or cost anything: x is whether one passed, y its loaded cost."""

    @property
    def interval(self) -> Interval | None:
        """Returns the interval of the cost per successful task."""
        return ratio_interval(self.sums)


_OF_JUDGES = f"""
           CAST(judged AND coalesce(verdict, '') = 'passed' AS int) AS is_passed_by_judge,
           CAST({IS_COMPARED} AS int) AS is_compared,
           CAST({IS_AGREED} AS int) AS is_agreed,"""

COUNTED = f"""
    SELECT {{columns}}
           job_id,
           1 AS is_job,
           CAST(state <> 'pending' AS int) AS is_settled,
           CAST(coalesce(verdict, '') = 'passed' AS int) AS is_passed,
           CAST(coalesce(verdict, '') IN ('passed', 'failed') AS int) AS has_verdict,
           CAST(state = 'failed' AS int) AS is_failed,
           CAST(oracle AS int) AS is_oracle,
           CAST(judged AS int) AS is_by_judge,{_OF_JUDGES}
           coalesce(completion_tokens, 0) AS completion_tokens,
           0 AS direct_nanodollars,
           0 AS loaded_nanodollars
    FROM reported_jobs WHERE {{condition}}
    UNION ALL
    SELECT {{columns}}
           job_id, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, direct_nanodollars, loaded_nanodollars
    FROM cost_entries WHERE {{condition}}
"""
"""SQL for what reports of costs ask of jobs and of ledger entries, a row each."""

_JOB = """
    SELECT {groups}
           sum(is_job) AS is_job, sum(is_settled) AS is_settled, sum(is_passed) AS is_passed,
           sum(has_verdict) AS has_verdict, sum(is_failed) AS is_failed, sum(is_oracle) AS is_oracle,
           sum(is_by_judge) AS is_by_judge, sum(is_passed_by_judge) AS is_passed_by_judge,
           sum(is_compared) AS is_compared, sum(is_agreed) AS is_agreed,
           sum(completion_tokens) AS completion_tokens,
           sum(direct_nanodollars) AS direct_nanodollars, sum(loaded_nanodollars) AS loaded_nanodollars,
           CAST(sum(loaded_nanodollars) AS float8) AS cost
    FROM counted GROUP BY job_id{more_groups}  -- first the number: texts are slow to sort
"""

_SUMMED = """
    SELECT {groups}
           sum(is_job) AS num_jobs, sum(is_settled) AS num_settled, sum(is_passed) AS num_passed,
           sum(has_verdict) AS num_verdicts, sum(is_failed) AS num_failed, sum(is_oracle) AS num_oracle,
           sum(is_by_judge) AS num_by_judge, sum(is_passed_by_judge) AS num_passed_by_judge,
           sum(is_compared) AS num_compared, sum(is_agreed) AS num_agreed,
           sum(completion_tokens) AS completion_tokens,
           sum(direct_nanodollars) AS direct_nanodollars, sum(loaded_nanodollars) AS loaded_nanodollars,
           count(*) FILTER (WHERE is_settled > 0 OR cost > 0) AS num_counted,
           sum(cost * cost) AS square_cost, sum(cost * is_passed) AS passed_cost
    FROM job
"""

_REPORT = f"""
    WITH counted AS ({COUNTED}), job AS ({_JOB})
    {_SUMMED} {{grouping}}
"""

# The jobs that are not in the totals: numbered or settled since, running or handed back, or of a stopped batch.
_LIVE = """
    SELECT job_id FROM chosen JOIN batch_totals USING (batch_id) JOIN result_runs USING (batch_id)
    CROSS JOIN LATERAL unnest(job_ids) WITH ORDINALITY AS settled(job_id, place)
    WHERE num_costed < num_completed + num_failed + num_expired + num_cancelled
      AND last_number > num_costed AND last_number - cardinality(job_ids) + place > num_costed
    UNION
    SELECT unnest(job_ids) FROM chosen JOIN tallies USING (batch_id)
    UNION
    SELECT jobs.id FROM (
        SELECT unnest(job_ids) AS id FROM chosen JOIN shards USING (batch_id) WHERE state <> 'finished'
    ) AS open JOIN jobs USING (id) WHERE state = 'pending'
    UNION
    SELECT job_id FROM late_costs JOIN jobs ON jobs.id = job_id JOIN chosen USING (batch_id) WHERE state = 'pending'
    UNION
    SELECT jobs.id FROM chosen JOIN jobs USING (batch_id)
    WHERE followed_line IS NOT NULL AND line > followed_line AND jobs.state = 'pending'
"""

_JOBS = """
    SELECT job_id, reported.* FROM {jobs} AS these CROSS JOIN LATERAL (
        SELECT tenant_id, key_id, batch_id, model, strategy, level, state, verdict, checked, judged, completion_tokens
        FROM reported_jobs WHERE reported_jobs.job_id = these.job_id OFFSET 0
    ) AS reported
"""

_NONE = ", ".join("0" * 11)
"""SQL for the counts of a part that has only costs."""

# The same as _REPORT, where groups and conditions are those of a cell (see `cost_totals`).
_FOLDED_REPORT = f"""
    WITH chosen AS MATERIALIZED (
        SELECT batch_id, followed_line FROM (SELECT id AS batch_id, tenant_id, followed_line FROM batches) AS each
        WHERE {{scope}}
    ), cell AS MATERIALIZED (
        SELECT {{columns}} totals.*
        FROM (
            SELECT cost_totals.*, tenant_id, key_id FROM cost_totals JOIN batches ON batches.id = batch_id
        ) AS totals WHERE {{condition}}
    ), live AS MATERIALIZED ({_LIVE}), late_cost AS MATERIALIZED (
        SELECT job_id, worker, hour, nanodollars
        FROM late_costs JOIN jobs ON jobs.id = job_id JOIN chosen USING (batch_id)
        WHERE job_id NOT IN (SELECT job_id FROM live)
    ), booked AS MATERIALIZED (
        SELECT job_id, worker, hour, nanodollars
        FROM (SELECT job_id FROM live UNION SELECT job_id FROM late_cost) AS these CROSS JOIN LATERAL (
            SELECT incarnation_id, date_trunc('hour', until_at, 'UTC') AS hour, nanodollars
            FROM ledger_entries WHERE ledger_entries.job_id = these.job_id
            OFFSET 0  -- keeps the planner from reading the whole ledger
        ) AS entry JOIN incarnations ON incarnations.id = incarnation_id
    ), worked AS MATERIALIZED (
        SELECT worker, hour FROM cell JOIN cost_hours ON cell_id = cell.id
        UNION SELECT worker, hour FROM booked UNION SELECT worker, hour FROM late_cost
    ), factor AS MATERIALIZED (
        SELECT worker, hour, 1 + overhead_nanodollars / nullif(direct_nanodollars, 0) AS factor
        FROM ({hours_among("worked")}) AS hours
    ), cost AS MATERIALIZED (
        SELECT job_id, sum(nanodollars) AS direct_nanodollars, sum(nanodollars * factor) AS loaded_nanodollars
        FROM booked JOIN factor USING (worker, hour) GROUP BY job_id
    ), job AS (
        SELECT {{columns}}
               0 AS is_job,
               CAST(state <> 'pending' AS int) AS is_settled,
               CAST(coalesce(verdict, '') = 'passed' AS int) AS is_passed,
               CAST(coalesce(verdict, '') IN ('passed', 'failed') AS int) AS has_verdict,
               CAST(state = 'failed' AS int) AS is_failed,
               0 AS is_oracle,
               0 AS is_by_judge,{_OF_JUDGES}
               coalesce(completion_tokens, 0) AS completion_tokens,
               coalesce(direct_nanodollars, 0) AS direct_nanodollars,
               coalesce(loaded_nanodollars, 0) AS loaded_nanodollars,
               CAST(coalesce(loaded_nanodollars, 0) AS float8) AS cost
        FROM ({_JOBS.format(jobs="live")}) AS jobs LEFT JOIN cost USING (job_id)
        WHERE {{condition}}
    ), late AS MATERIALIZED (
        SELECT job_id, sum(nanodollars) AS direct_nanodollars, sum(nanodollars * factor) AS loaded_nanodollars
        FROM late_cost JOIN factor USING (worker, hour) GROUP BY job_id
    ), late_job AS (
        SELECT {{columns}} CAST(coalesce(verdict, '') = 'passed' AS int) AS is_passed, late.direct_nanodollars,
               late.loaded_nanodollars, cost.loaded_nanodollars AS whole
        FROM late JOIN ({_JOBS.format(jobs="late")}) AS jobs USING (job_id)
        JOIN cost USING (job_id) WHERE {{condition}}
    ), part AS (
        SELECT {{groups}} num_jobs, num_settled, num_passed, num_verdicts, num_failed, num_oracle, num_by_judge,
               num_passed_by_judge, num_compared, num_agreed, completion_tokens,
               0 AS direct_nanodollars, 0 AS loaded_nanodollars, num_settled AS num_counted,
               0 AS square_cost, 0 AS passed_cost
        FROM cell
        UNION ALL
        SELECT {{groups}} {_NONE}, nanodollars, nanodollars * factor, 0, 0, passed_nanodollars * factor
        FROM cell JOIN cost_hours ON cell_id = cell.id JOIN factor USING (worker, hour)
        UNION ALL
        SELECT {{groups}} {_NONE}, 0, 0, 0, product * one.factor * other.factor, 0
        FROM cell JOIN cost_products ON cell_id = cell.id JOIN factor AS one USING (worker, hour)
        JOIN factor AS other ON (other.worker, other.hour) = (other_worker, other_hour)
        UNION ALL
        SELECT {{groups}} 0, num_settled, num_passed, num_verdicts, num_failed, 0, 0,
               num_passed_by_judge, num_compared, num_agreed, completion_tokens,
               direct_nanodollars, loaded_nanodollars, num_counted, square_cost, passed_cost
        FROM ({_SUMMED} {{grouping}}) AS summed WHERE num_settled IS NOT NULL
        UNION ALL
        SELECT {{groups}} {_NONE}, direct_nanodollars, loaded_nanodollars, 0,
               (2 * whole - loaded_nanodollars) * loaded_nanodollars, loaded_nanodollars * is_passed
        FROM late_job
    )
    SELECT {{groups}}
           sum(num_jobs) AS num_jobs, sum(num_settled) AS num_settled, sum(num_passed) AS num_passed,
           sum(num_verdicts) AS num_verdicts, sum(num_failed) AS num_failed, sum(num_oracle) AS num_oracle,
           sum(num_by_judge) AS num_by_judge, sum(num_passed_by_judge) AS num_passed_by_judge,
           sum(num_compared) AS num_compared, sum(num_agreed) AS num_agreed,
           sum(completion_tokens) AS completion_tokens,
           sum(direct_nanodollars) AS direct_nanodollars, sum(loaded_nanodollars) AS loaded_nanodollars,
           sum(num_counted) AS num_counted, sum(square_cost) AS square_cost, sum(passed_cost) AS passed_cost
    FROM part {{grouping}}
"""


_UNASSIGNED = text("""
    SELECT CAST(coalesce(sum(overhead_nanodollars), 0) AS bigint) FROM worker_hours WHERE direct_nanodollars = 0
""")


def cost_report(connection: Connection, selection: Selection) -> list[CostRow]:
    """Returns one row per group, in order, or a single row without `by`."""
    selection.check_metadata(connection)
    groups = "".join(f"{name}, " for name in selection.names)
    statement = (_FOLDED_REPORT if selection.is_of_cells else _REPORT).format(
        columns=selection.columns,
        condition=selection.condition,
        scope=selection.scope.condition,
        groups=groups,
        more_groups="".join(f", {name}" for name in selection.names),
        grouping=selection.grouping,
    )
    rows = connection.execute(text(statement), selection.values)
    return [_row(row, selection) for row in rows if row.num_jobs is not None]


def unassigned(connection: Connection) -> int:
    """Returns the overhead, in nano-dollars, for hours in which a worker served no job, so that no job bears it.

    Together with the loaded cost of all tenants' jobs it is the bill of all workers.
    """
    return int(connection.execute(_UNASSIGNED).scalar_one())


def _row(row: Row[Any], selection: Selection) -> CostRow:
    loaded = row.loaded_nanodollars
    judged = row.num_verdicts + row.num_failed
    passed = float(row.num_passed)
    return CostRow(
        group=selection.group(row),
        num_jobs=int(row.num_jobs),
        num_settled=int(row.num_settled),
        num_passed=int(row.num_passed),
        num_oracle=int(row.num_oracle),
        num_by_judge=int(row.num_by_judge),
        num_passed_by_judge=int(row.num_passed_by_judge),
        num_compared=int(row.num_compared),
        agreement=float(row.num_agreed / row.num_compared) if row.num_compared else None,
        accuracy=float(row.num_passed / judged) if row.num_verdicts else None,
        accuracy_interval=(Interval(*share_interval(int(row.num_passed), int(judged))) if row.num_verdicts else None),
        completion_tokens=int(row.completion_tokens),
        tokens_per_job=float(row.completion_tokens / row.num_settled) if row.num_settled else None,
        direct_nanodollars=int(row.direct_nanodollars),
        loaded_nanodollars=round(loaded),
        nanodollars_per_job=float(loaded / row.num_settled) if row.num_settled else None,
        cost_per_successful_task=float(loaded / row.num_passed) if row.num_passed else None,
        # A job passes once or not at all, so that the sum of squares is the sum.
        sums=Sums(int(row.num_counted), passed, float(loaded), passed, float(row.square_cost), float(row.passed_cost)),
    )
