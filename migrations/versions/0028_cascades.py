"""cascades: what the ended batches of a tenant taught, and which model's worker did the work, in the reports

Revision ID: 0028
Revises: 0027
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0028"
down_revision = "0027"
branch_labels = None
depends_on = None

_ADDED = {
    "counted": " AND outcome IS DISTINCT FROM 'handed_on'",  # a cascade that goes on was not interrupted
    "of_last_worker": """,
       (SELECT incarnations.model FROM attempts JOIN incarnations ON incarnations.id = attempts.incarnation_id
        WHERE attempts.job_id = jobs.id ORDER BY attempts.id DESC LIMIT 1) AS worker_model""",
    "of_worker": ",\n       incarnations.model AS worker_model",
    "worker_model": ",\n       worker_model",
}
"""What this revision adds to the views of 0018, by its place in them."""

# By what every report can be grouped. Columns that a query does not name cost it nothing: Postgres leaves out
# subqueries and left joins on a key that nothing reads.
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
       (SELECT count(*) FROM attempts WHERE attempts.job_id = jobs.id<counted>) AS num_attempts,
       usage.num_rounds,
       results.finish_reason,
       usage.prompt_tokens,
       usage.cached_tokens,
       usage.completion_tokens,
       usage.thinking_tokens,
       usage.chosen_tokens,
       usage.pruned_tokens,
       usage.other_round_tokens<of_last_worker>
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
       extract(epoch FROM settled_at - first_token_at) / nullif(completion_tokens - 1, 0) AS token_s<worker_model>
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
       completion_tokens - thinking_tokens AS answer_tokens<worker_model>
FROM reported_jobs
WHERE state IN ('completed', 'failed', 'expired')
"""

_COST_ENTRIES = f"""
SELECT ledger_entries.id AS entry_id,
       jobs.id AS job_id,{_DIMENSIONS},
       incarnations.market,
       incarnations.machine,
       ledger_entries.until_at AS at,
       incarnations.id AS incarnation_id,
       incarnations.nanodollars_per_hour,
       ledger_entries.kind,
       ledger_entries.nanodollars AS direct_nanodollars,
       ledger_entries.nanodollars * (1 + overhead_nanodollars / nullif(direct_nanodollars, 0)) AS loaded_nanodollars<of_worker>
FROM ledger_entries
JOIN incarnations ON incarnations.id = ledger_entries.incarnation_id
JOIN worker_hours
  ON worker_hours.worker = incarnations.worker
 AND worker_hours.hour = date_trunc('hour', ledger_entries.until_at, 'UTC')
JOIN jobs ON jobs.id = ledger_entries.job_id
LEFT JOIN batches ON batches.id = jobs.batch_id
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
       part.nanodollars<of_worker>
FROM ledger_entries
JOIN incarnations ON incarnations.id = ledger_entries.incarnation_id
LEFT JOIN jobs ON jobs.id = ledger_entries.job_id
LEFT JOIN batches ON batches.id = jobs.batch_id
LEFT JOIN usage ON usage.job_id = jobs.id
CROSS JOIN LATERAL (
    SELECT CAST(ledger_entries.nanodollars AS numeric) AS whole,
           chosen_tokens + pruned_tokens + other_round_tokens AS num_tokens,
           ledger_entries.kind = 'work' AND jobs.state = 'completed'
               AND chosen_tokens + pruned_tokens + other_round_tokens > 0 AS is_split
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
                 ('other_rounds', chosen_tokens + pruned_tokens, num_tokens)) AS split(kind, from_token, until_token)
    WHERE is_split AND until_token > from_token
) AS part
"""

_VIEWS = {
    "reported_jobs": _REPORTED_JOBS,
    "job_latencies": _JOB_LATENCIES,
    "job_quality": _JOB_QUALITY,
    "cost_entries": _COST_ENTRIES,
    "waste_entries": _WASTE_ENTRIES,
}


def upgrade() -> None:
    op.alter_column("attempts", "outcome", comment="settled | preempted | handed_on | lost | cancelled")
    op.create_table(
        "tenant_learnings",
        sa.Column("tenant_id", sa.Text(), nullable=False),
        sa.Column("scope", sa.Text(), nullable=False, comment="names the weights and the strategy of the jobs"),
        sa.Column("sums", postgresql.JSONB(), nullable=False, comment="{name: number}, as of learnt_at"),
        sa.Column("learnt_at", sa.DateTime(timezone=True), nullable=False, comment="they halve with every week since"),
        sa.ForeignKeyConstraint(["tenant_id"], ["tenants.id"], name="fk_tenant_learnings_tenant_id"),
        sa.PrimaryKeyConstraint("tenant_id", "scope", name="pk_tenant_learnings"),
    )
    for name, view in _VIEWS.items():
        op.execute(f"CREATE OR REPLACE VIEW {name} AS {_filled(view, _ADDED)}")


def downgrade() -> None:
    for name in reversed(_VIEWS):
        op.execute(f"DROP VIEW {name}")
    for name, view in _VIEWS.items():
        op.execute(f"CREATE VIEW {name} AS {_filled(view, dict.fromkeys(_ADDED, ''))}")
    op.drop_table("tenant_learnings")
    op.alter_column("attempts", "outcome", comment="settled | preempted | lost | cancelled")


def _filled(view: str, added: dict[str, str]) -> str:
    for place, more in added.items():
        view = view.replace(f"<{place}>", more)
    return view
