"""tallies: counts and sums of batches, and numbers of settled jobs, without counting jobs

Revision ID: 0017
Revises: 0016
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0017"
down_revision = "0016"
branch_labels = None
depends_on = None

_SUMS = (
    ("num_completed", "num_failed", "num_expired", "num_cancelled", "num_rejected", "num_oracle")
    + ("num_passed", "num_judged_wrong", "num_unverified")
    + ("prompt_tokens", "cached_tokens", "completion_tokens", "thinking_tokens", "direct_nanodollars")
    + ("generated_tokens", "settled_nanodollars")
)

_COUNT = """
    INSERT INTO batch_totals (batch_id, num_completed, num_failed, num_expired, num_cancelled, num_rejected, num_oracle,
                              num_passed, num_judged_wrong, num_unverified, prompt_tokens, cached_tokens,
                              completion_tokens, thinking_tokens, direct_nanodollars, generated_tokens,
                              settled_nanodollars)
    SELECT batches.id, coalesce(completed, 0), coalesce(failed, 0), coalesce(expired, 0), coalesce(cancelled, 0),
           (SELECT count(*) FROM rejected_lines WHERE batch_id = batches.id), coalesce(oracle, 0),
           coalesce(passed, 0), coalesce(judged_wrong, 0), coalesce(unverified, 0),
           coalesce(prompt, 0), coalesce(cached, 0), coalesce(generated, 0), coalesce(thinking, 0), coalesce(cost, 0),
           coalesce(generated, 0) + coalesce(saved, 0), coalesce(settled_cost, 0)
    FROM batches
    LEFT JOIN (
        SELECT batch_id, count(*) FILTER (WHERE state = 'completed') AS completed,
               count(*) FILTER (WHERE state = 'failed') AS failed,
               count(*) FILTER (WHERE state = 'expired') AS expired,
               count(*) FILTER (WHERE state = 'cancelled') AS cancelled,
               count(*) FILTER (WHERE oracle) AS oracle,
               count(*) FILTER (WHERE verdict = 'passed') AS passed,
               count(*) FILTER (WHERE verdict = 'failed') AS judged_wrong,
               count(*) FILTER (WHERE verdict = 'unverified') AS unverified,
               sum(prompt_tokens) AS prompt, sum(cached_tokens) AS cached,
               sum(completion_tokens) AS generated, sum(thinking_tokens) AS thinking
        FROM jobs LEFT JOIN usage ON usage.job_id = jobs.id GROUP BY batch_id
    ) AS counted ON counted.batch_id = batches.id
    LEFT JOIN (
        SELECT ledger_entries.batch_id, sum(nanodollars) AS cost,
               sum(nanodollars) FILTER (WHERE jobs.state IN ('completed', 'failed') AND kind <> 'duplicate')
                   AS settled_cost
        FROM ledger_entries LEFT JOIN jobs ON jobs.id = job_id GROUP BY ledger_entries.batch_id
    ) AS spent ON spent.batch_id = batches.id
    LEFT JOIN (
        SELECT batch_id, sum(num_tokens) AS saved FROM tree_deltas GROUP BY batch_id
    ) AS unsettled ON unsettled.batch_id = batches.id
"""

_NUMBER = """
    INSERT INTO result_runs (batch_id, last_number, job_ids)
    SELECT batch_id, max(number), array_agg(id ORDER BY number)
    FROM (
        SELECT batch_id, id, row_number() OVER (PARTITION BY batch_id ORDER BY settled_at, id) AS number
        FROM jobs WHERE state <> 'pending'
    ) AS settled
    GROUP BY batch_id, (number - 1) / 1000
"""


def upgrade() -> None:
    # A worker that settles between this count and the commit would be left out of it.
    op.execute("LOCK TABLE jobs, ledger_entries, rejected_lines, tree_deltas IN SHARE MODE")
    op.create_table(
        "tallies",
        sa.Column("id", sa.BigInteger(), sa.Identity(), nullable=False),
        sa.Column("batch_id", sa.Text(), nullable=False),
        sa.Column(
            "job_ids", postgresql.ARRAY(sa.BigInteger()), nullable=False, server_default="{}",
            comment="settled, and not numbered yet",
        ),
        *_columns(),
        sa.ForeignKeyConstraint(["batch_id"], ["batches.id"], name="fk_tallies_batch_id"),
        sa.PrimaryKeyConstraint("id", name="pk_tallies"),
    )
    op.create_index("ix_tallies_batch_id", "tallies", ["batch_id"])
    op.create_table(
        "batch_totals",
        sa.Column("batch_id", sa.Text(), nullable=False),
        *_columns(),
        sa.ForeignKeyConstraint(["batch_id"], ["batches.id"], name="fk_batch_totals_batch_id"),
        sa.PrimaryKeyConstraint("batch_id", name="pk_batch_totals"),
    )
    op.create_table(
        "result_runs",
        sa.Column("batch_id", sa.Text(), nullable=False),
        sa.Column(
            "last_number", sa.BigInteger(), nullable=False, comment="of the run; the numbers of a batch have no gaps"
        ),
        sa.Column(
            "job_ids", postgresql.ARRAY(sa.BigInteger()), nullable=False,
            comment="settled jobs in the order of their numbers",
        ),
        sa.CheckConstraint("cardinality(job_ids) BETWEEN 1 AND 1000", name="ck_result_runs_length"),
        sa.ForeignKeyConstraint(["batch_id"], ["batches.id"], name="fk_result_runs_batch_id"),
        sa.PrimaryKeyConstraint("batch_id", "last_number", name="pk_result_runs"),
    )
    op.execute(_COUNT)
    op.execute(_NUMBER)


def downgrade() -> None:
    for table in ("result_runs", "batch_totals", "tallies"):
        op.drop_table(table)


def _columns() -> list[sa.Column[object]]:
    return [sa.Column(name, sa.BigInteger(), nullable=False, server_default="0") for name in _SUMS]
