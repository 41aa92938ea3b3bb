"""what a batch gained over time, what each settled job cost, and indexes to list a batch's jobs by any of it

Revision ID: 0037
Revises: 0036
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0037"
down_revision = "0036"
branch_labels = None
depends_on = None

_SUMS = (
    "num_completed",
    "num_failed",
    "num_passed",
    "num_judged_wrong",
    "num_unverified",
    "prompt_tokens",
    "generated_tokens",
    "direct_nanodollars",
)

# Of the jobs whose costs are folded. What was booked too late for that is added when it is folded.
_COSTS = """
    INSERT INTO settled_jobs (batch_id, line, job_id, state, verdict, level, tokens, nanodollars)
    SELECT jobs.batch_id, line, jobs.id, jobs.state, verdict, level, coalesce(usage.completion_tokens, 0),
           coalesce((SELECT sum(nanodollars) FROM ledger_entries WHERE job_id = jobs.id), 0)
           - coalesce((SELECT sum(nanodollars) FROM late_costs WHERE job_id = jobs.id), 0)
    FROM result_runs JOIN batch_totals USING (batch_id)
    CROSS JOIN LATERAL unnest(job_ids) WITH ORDINALITY AS settled(job_id, place)
    JOIN jobs ON jobs.id = settled.job_id LEFT JOIN usage ON usage.job_id = jobs.id
    WHERE last_number - cardinality(job_ids) + place <= num_costed
"""


def upgrade() -> None:
    # All locks at once and in a tick's order, or a tick that holds jobs and goes on to the ledger would deadlock with
    # this. A dispatcher that folds between the count below and the commit would be left out of it.
    op.execute("LOCK TABLE jobs, tallies IN ACCESS EXCLUSIVE MODE")
    op.execute("LOCK TABLE ledger_entries, late_costs, batches, batch_totals IN SHARE ROW EXCLUSIVE MODE")
    op.add_column(
        "tallies",
        sa.Column("at", sa.DateTime(timezone=True), nullable=False, server_default=sa.text("clock_timestamp()")),
    )
    op.create_table(
        "batch_history",
        sa.Column("batch_id", sa.Text, nullable=False),
        sa.Column(
            "begin_at",
            sa.DateTime(timezone=True),
            nullable=False,
            comment="of a stretch of time, which is longer the longer the batch has run",
        ),
        *(sa.Column(name, sa.BigInteger, nullable=False, server_default="0") for name in _SUMS),
        sa.PrimaryKeyConstraint("batch_id", "begin_at", name="pk_batch_history"),
        sa.ForeignKeyConstraint(["batch_id"], ["batches.id"], name="fk_batch_history_batch_id_batches"),
    )
    op.create_table(
        "settled_jobs",
        sa.Column("batch_id", sa.Text, nullable=False),
        sa.Column("line", sa.Integer, nullable=False),
        sa.Column("job_id", sa.BigInteger, nullable=False),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("verdict", sa.Text),
        sa.Column("level", sa.Text),
        sa.Column("tokens", sa.BigInteger, nullable=False, comment="generated"),
        sa.Column("nanodollars", sa.BigInteger, nullable=False, comment="its direct cost"),
        sa.PrimaryKeyConstraint("batch_id", "line", name="pk_settled_jobs"),
        sa.ForeignKeyConstraint(["batch_id"], ["batches.id"], name="fk_settled_jobs_batch_id_batches"),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"], name="fk_settled_jobs_job_id_jobs"),
    )
    op.execute(_COSTS)
    op.create_index("ix_settled_jobs_tokens", "settled_jobs", ["batch_id", "tokens", "line"])
    op.create_index("ix_settled_jobs_nanodollars", "settled_jobs", ["batch_id", "nanodollars", "line"])
    op.drop_index("ix_jobs_batch_state", "jobs")
    op.create_index("ix_jobs_batch_state", "jobs", ["batch_id", "state", "line"])
    op.create_index(
        "ix_jobs_batch_verdict",
        "jobs",
        ["batch_id", "verdict", "line"],
        postgresql_where=sa.text("verdict IS NOT NULL"),
    )
    op.create_index(
        "ix_jobs_batch_level", "jobs", ["batch_id", "level", "line"], postgresql_where=sa.text("level IS NOT NULL")
    )
    # By bytes, so that an index finds the texts that begin with another, whatever the database's locale.
    op.alter_column("jobs", "custom_id", type_=sa.Text(collation="C"))


def downgrade() -> None:
    op.alter_column("jobs", "custom_id", type_=sa.Text(collation="default"))
    op.drop_index("ix_jobs_batch_level", "jobs")
    op.drop_index("ix_jobs_batch_verdict", "jobs")
    op.drop_index("ix_jobs_batch_state", "jobs")
    op.create_index("ix_jobs_batch_state", "jobs", ["batch_id", "state"])
    op.drop_table("settled_jobs")
    op.drop_table("batch_history")
    op.drop_column("tallies", "at")
