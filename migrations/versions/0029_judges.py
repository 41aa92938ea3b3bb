"""judges: verdicts of models apart from verdicts by the reference, what judges generate, and how well both agree

Revision ID: 0029
Revises: 0028
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0029"
down_revision = "0028"
branch_labels = None
depends_on = None

_SUMS = ("num_by_judge", "num_passed_by_judge", "judge_tokens")
"""New in tallies and batch_totals."""
_COST_SUMS = ("num_by_judge", "num_passed_by_judge", "num_compared", "num_agreed")
"""New in cost_totals."""

_ADDED = {
    "of_jobs": """,
       jobs.judged,
       jobs.checked,
       usage.judge_tokens,
       usage.judged_tokens""",
    "of_quality": ",\n       judged,\n       checked",
    "but_judges": " - judge_tokens",
    "and_judged": " + judged_tokens",
    "of_judges": """,
                 ('judged', chosen_tokens + pruned_tokens + other_round_tokens, num_tokens)""",
    "of_tasks": """,
       count(*) FILTER (WHERE jobs.judged) AS num_by_judge,
       count(*) FILTER (WHERE jobs.judged AND jobs.verdict = 'passed') AS num_passed_by_judge,
       count(*) FILTER (WHERE jobs.verdict IN ('passed', 'failed') AND jobs.checked IN ('passed', 'failed'))
           AS num_compared,
       count(*) FILTER (WHERE jobs.verdict IN ('passed', 'failed') AND jobs.checked = jobs.verdict) AS num_agreed""",
}
"""What this revision adds to the views of 0028 and 0005, by its place in them."""

_DIMENSIONS = """
       jobs.tenant_id,
       batches.key_id,
       jobs.batch_id,
       jobs.model,
       jobs.strategy,
       jobs.level,
       batches.metadata || coalesce(jobs.request #> '{kept,metadata}', '{}') AS metadata"""

# The state of a cancelled or expired batch counts before its jobs' rows follow.
_STATE = """CASE WHEN jobs.state <> 'pending' THEN jobs.state
            WHEN batches.state IN ('cancelling', 'cancelled') THEN 'cancelled'
            WHEN batches.state = 'expired' THEN 'expired' ELSE 'pending' END"""

_REPORTED_JOBS = f"""
SELECT jobs.id AS job_id,{_DIMENSIONS},
       (SELECT market FROM attempts JOIN incarnations ON incarnations.id = attempts.incarnation_id
        WHERE attempts.job_id = jobs.id ORDER BY attempts.id DESC LIMIT 1) AS market,
       (SELECT machine FROM attempts JOIN incarnations ON incarnations.id = attempts.incarnation_id
        WHERE attempts.job_id = jobs.id ORDER BY attempts.id DESC LIMIT 1) AS machine,
       coalesce(jobs.settled_at, jobs.created_at) AS at,
       {_STATE} AS state,
       jobs.verdict,
       jobs.oracle,
       jobs.created_at,
       jobs.settled_at,
       (SELECT min(started_at) FROM attempts WHERE attempts.job_id = jobs.id) AS started_at,
       usage.first_token_at,
       usage.first_visible_token_at,
       (SELECT count(*) FROM attempts WHERE attempts.job_id = jobs.id AND outcome IS DISTINCT FROM 'handed_on')
           AS num_attempts,
       usage.num_rounds,
       results.finish_reason,
       usage.prompt_tokens,
       usage.cached_tokens,
       usage.completion_tokens,
       usage.thinking_tokens,
       usage.chosen_tokens,
       usage.pruned_tokens,
       usage.other_round_tokens,
       (SELECT incarnations.model FROM attempts JOIN incarnations ON incarnations.id = attempts.incarnation_id
        WHERE attempts.job_id = jobs.id ORDER BY attempts.id DESC LIMIT 1) AS worker_model<of_jobs>
FROM jobs
LEFT JOIN batches ON batches.id = jobs.batch_id
LEFT JOIN usage ON usage.job_id = jobs.id
LEFT JOIN results ON results.job_id = jobs.id
"""

_JOB_LATENCIES = """
SELECT job_id, tenant_id, key_id, batch_id, model, strategy, level, metadata, market, machine, at,
       extract(epoch FROM started_at - created_at) AS queued_s,
       extract(epoch FROM first_token_at - created_at) AS first_token_s,
       extract(epoch FROM first_visible_token_at - created_at) AS first_visible_token_s,
       extract(epoch FROM settled_at - created_at) AS end_to_end_s,
       extract(epoch FROM settled_at - first_token_at) / nullif(completion_tokens - 1, 0) AS token_s,
       worker_model
FROM reported_jobs
WHERE state IN ('completed', 'failed')
"""

_JOB_QUALITY = """
SELECT job_id, tenant_id, key_id, batch_id, model, strategy, level, metadata, market, machine, at,
       verdict,
       state = 'failed' AS is_error,
       state = 'expired' OR coalesce(finish_reason, '') = 'deadline' AS is_timeout,
       coalesce(finish_reason, '') = 'length' AS is_truncated,
       num_rounds,
       num_attempts,
       prompt_tokens,
       cached_tokens,
       thinking_tokens,
       completion_tokens - thinking_tokens<but_judges> AS answer_tokens,
       worker_model<of_quality>
FROM reported_jobs
WHERE state IN ('completed', 'failed', 'expired')
"""

# The parts of an entry are differences of rounded-down running sums, so that they add up to it exactly.
_WASTE_ENTRIES = f"""
SELECT ledger_entries.id AS entry_id,
       ledger_entries.job_id,{_DIMENSIONS},
       incarnations.market,
       incarnations.machine,
       ledger_entries.until_at AS at,
       incarnations.id AS incarnation_id,
       part.kind,
       part.nanodollars,
       incarnations.model AS worker_model
FROM ledger_entries
JOIN incarnations ON incarnations.id = ledger_entries.incarnation_id
LEFT JOIN jobs ON jobs.id = ledger_entries.job_id
LEFT JOIN batches ON batches.id = jobs.batch_id
LEFT JOIN usage ON usage.job_id = jobs.id
CROSS JOIN LATERAL (
    SELECT CAST(ledger_entries.nanodollars AS numeric) AS whole,
           chosen_tokens + pruned_tokens + other_round_tokens<and_judged> AS num_tokens,
           ledger_entries.kind = 'work' AND jobs.state = 'completed'
               AND chosen_tokens + pruned_tokens + other_round_tokens<and_judged> > 0 AS is_split
) AS entry
CROSS JOIN LATERAL (
    SELECT CASE WHEN ledger_entries.kind <> 'work' THEN ledger_entries.kind
                WHEN {_STATE} = 'pending' THEN 'pending'
                WHEN jobs.state = 'failed' THEN 'failed'
                WHEN jobs.state <> 'completed' THEN 'cancelled'
                WHEN chosen_tokens IS NULL THEN 'unknown'
                ELSE 'chosen' END AS kind,
           ledger_entries.nanodollars
    WHERE is_split IS NOT TRUE
    UNION ALL
    SELECT split.kind, CAST(div(whole * until_token, num_tokens) - div(whole * from_token, num_tokens) AS bigint)
    FROM (VALUES ('chosen', 0, chosen_tokens),
                 ('pruned', chosen_tokens, chosen_tokens + pruned_tokens),
                 ('other_rounds', chosen_tokens + pruned_tokens,
                  chosen_tokens + pruned_tokens + other_round_tokens)<of_judges>) AS split(kind, from_token, until_token)
    WHERE is_split AND until_token > from_token
) AS part
"""

_COST_PER_SUCCESSFUL_TASK = """
SELECT jobs.tenant_id,
       jobs.model,
       jobs.strategy,
       jobs.level,
       count(*) AS num_jobs,
       count(*) FILTER (WHERE jobs.state <> 'pending') AS num_settled,
       count(*) FILTER (WHERE jobs.verdict = 'passed') AS num_passed,
       coalesce(sum(costs.direct_nanodollars), 0) AS direct_nanodollars,
       coalesce(sum(costs.loaded_nanodollars), 0) AS loaded_nanodollars,
       sum(costs.loaded_nanodollars) / nullif(count(*) FILTER (WHERE jobs.verdict = 'passed'), 0)
           AS cost_per_successful_task,
       count(*) FILTER (WHERE jobs.oracle) AS num_oracle<of_tasks>
FROM jobs
LEFT JOIN (
    SELECT job_id,
           sum(direct_nanodollars) AS direct_nanodollars,
           sum(loaded_nanodollars) AS loaded_nanodollars
    FROM job_costs
    GROUP BY job_id
) AS costs ON costs.job_id = jobs.id
GROUP BY 1, 2, 3, 4
"""

_VIEWS = {
    "reported_jobs": _REPORTED_JOBS,
    "job_latencies": _JOB_LATENCIES,
    "job_quality": _JOB_QUALITY,
    "waste_entries": _WASTE_ENTRIES,
    "cost_per_successful_task": _COST_PER_SUCCESSFUL_TASK,
}


def upgrade() -> None:
    op.add_column(
        "jobs",
        sa.Column(
            "judged", sa.Boolean(), nullable=False, server_default=sa.text("false"), comment="the verdict is a model's"
        ),
    )
    op.add_column(
        "jobs",
        sa.Column("checked", sa.Text(), comment="of a judged job with a reference: the verdict of comparing with it"),
    )
    for name, comment in (
        ("judge_tokens", "of the generated ones, those that judges generated"),
        ("judged_tokens", "in the replies of judges, on no path to an answer"),
    ):
        op.add_column(
            "usage", sa.Column(name, sa.BigInteger(), nullable=False, server_default="0", comment=comment)
        )
    for table, names in (("tallies", _SUMS), ("batch_totals", _SUMS), ("cost_totals", _COST_SUMS)):
        for name in names:
            op.add_column(table, sa.Column(name, sa.BigInteger(), nullable=False, server_default="0"))
    for name, view in _VIEWS.items():
        op.execute(f"CREATE OR REPLACE VIEW {name} AS {_filled(view, _ADDED)}")


def downgrade() -> None:
    for name in reversed(_VIEWS):
        op.execute(f"DROP VIEW {name}")
    for name, view in _VIEWS.items():
        op.execute(f"CREATE VIEW {name} AS {_filled(view, dict.fromkeys(_ADDED, ''))}")
    for table, names in (("cost_totals", _COST_SUMS), ("batch_totals", _SUMS), ("tallies", _SUMS)):
        for name in names:
            op.drop_column(table, name)
    for table, names in (("usage", ("judged_tokens", "judge_tokens")), ("jobs", ("checked", "judged"))):
        for name in names:
            op.drop_column(table, name)


def _filled(view: str, added: dict[str, str]) -> str:
    for place, more in added.items():
        view = view.replace(f"<{place}>", more)
    return view
