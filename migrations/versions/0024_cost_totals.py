"""cost totals: what reports of costs add up, without reading jobs and ledger entries

Revision ID: 0024
Revises: 0023
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0024"
down_revision = "0023"
branch_labels = None
depends_on = None

_HOURS_OF_ENTRIES = """
SELECT incarnations.worker,
       date_trunc('hour', ledger_entries.until_at, 'UTC') AS hour,
       coalesce(sum(nanodollars) FILTER (WHERE job_id IS NOT NULL), 0) AS direct_nanodollars,
       coalesce(sum(nanodollars) FILTER (WHERE job_id IS NULL), 0) AS overhead_nanodollars
FROM ledger_entries
JOIN incarnations ON incarnations.id = ledger_entries.incarnation_id
GROUP BY 1, 2
"""

_HOURS_OF_TALLIES = """
SELECT worker, hour, sum(direct_nanodollars) AS direct_nanodollars, sum(overhead_nanodollars) AS overhead_nanodollars
FROM (
    SELECT worker, hour, direct_nanodollars, overhead_nanodollars FROM hour_totals
    UNION ALL
    SELECT worker, hour, direct_nanodollars, overhead_nanodollars FROM hour_tallies
) AS added
GROUP BY 1, 2
"""

_BEGIN = """
    INSERT INTO cost_totals (batch_id, model, strategy, level, num_jobs, num_oracle)
    SELECT batch_id, model, strategy, level, count(*), count(*) FILTER (WHERE oracle) FROM jobs GROUP BY 1, 2, 3, 4
"""


def upgrade() -> None:
    # A worker that books, or a batch that begins, between this count and the commit would be left out of it.
    op.execute("LOCK TABLE jobs, ledger_entries IN SHARE MODE")
    op.create_table(
        "hour_tallies",
        sa.Column("id", sa.BigInteger(), sa.Identity(), nullable=False),
        *_hour(),
        sa.PrimaryKeyConstraint("id", name="pk_hour_tallies"),
    )
    op.create_table("hour_totals", *_hour(), sa.PrimaryKeyConstraint("worker", "hour", name="pk_hour_totals"))
    op.execute(f"INSERT INTO hour_totals {_HOURS_OF_ENTRIES}")
    op.execute(f"CREATE OR REPLACE VIEW worker_hours AS {_HOURS_OF_TALLIES}")
    op.add_column(
        "batch_totals",
        sa.Column(
            "num_costed", sa.BigInteger(), nullable=False, server_default="0",
            comment="the settled jobs up to this number are in cost_totals",
        ),
    )
    op.create_index(
        "ix_batch_totals_uncosted", "batch_totals", ["batch_id"],
        postgresql_where=sa.text("num_costed < num_completed + num_failed + num_expired + num_cancelled"),
    )
    op.create_table(
        "cost_totals",
        sa.Column("id", sa.BigInteger(), sa.Identity(), nullable=False),
        sa.Column("batch_id", sa.Text(), nullable=False),
        sa.Column("model", sa.Text(), nullable=False),
        sa.Column("strategy", sa.Text(), nullable=False),
        sa.Column("level", sa.Text()),
        *(
            sa.Column(name, sa.BigInteger(), nullable=False, server_default="0")
            for name in ("num_jobs", "num_oracle", "num_settled", "num_passed", "num_verdicts", "num_failed",
                         "completion_tokens")
        ),
        sa.PrimaryKeyConstraint("id", name="pk_cost_totals"),
        sa.ForeignKeyConstraint(["batch_id"], ["batches.id"], name="fk_cost_totals_batch_id_batches"),
    )
    op.create_index(
        "ix_cost_totals_cell", "cost_totals", ["batch_id", "model", "strategy", "level"],
        unique=True, postgresql_nulls_not_distinct=True,
    )
    op.create_table(
        "cost_hours",
        sa.Column("cell_id", sa.BigInteger(), nullable=False),
        sa.Column("worker", sa.Text(), nullable=False),
        sa.Column("hour", sa.DateTime(timezone=True), nullable=False),
        sa.Column("nanodollars", sa.BigInteger(), nullable=False),
        sa.Column("passed_nanodollars", sa.BigInteger(), nullable=False, comment="of jobs that passed"),
        sa.PrimaryKeyConstraint("cell_id", "worker", "hour", name="pk_cost_hours"),
        sa.ForeignKeyConstraint(["cell_id"], ["cost_totals.id"], name="fk_cost_hours_cell_id_cost_totals"),
    )
    op.create_table(
        "cost_products",
        sa.Column("cell_id", sa.BigInteger(), nullable=False),
        sa.Column("worker", sa.Text(), nullable=False),
        sa.Column("hour", sa.DateTime(timezone=True), nullable=False),
        sa.Column("other_worker", sa.Text(), nullable=False),
        sa.Column("other_hour", sa.DateTime(timezone=True), nullable=False),
        sa.Column(
            "product", sa.Numeric(), nullable=False,
            comment="of a job's nano-dollars in both, twice if they differ; the sum over jobs",
        ),
        sa.PrimaryKeyConstraint(
            "cell_id", "worker", "hour", "other_worker", "other_hour", name="pk_cost_products"
        ),
        sa.ForeignKeyConstraint(["cell_id"], ["cost_totals.id"], name="fk_cost_products_cell_id_cost_totals"),
    )
    op.create_table(
        "late_costs",
        sa.Column("id", sa.BigInteger(), sa.Identity(), nullable=False),
        sa.Column("job_id", sa.BigInteger(), nullable=False),
        sa.Column("worker", sa.Text(), nullable=False),
        sa.Column("hour", sa.DateTime(timezone=True), nullable=False),
        sa.Column("nanodollars", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_late_costs"),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"], name="fk_late_costs_job_id_jobs"),
    )
    op.create_index("ix_late_costs_job_id", "late_costs", ["job_id"])
    op.execute(_BEGIN)


def downgrade() -> None:
    op.execute(f"CREATE OR REPLACE VIEW worker_hours AS {_HOURS_OF_ENTRIES}")
    for table in ("late_costs", "cost_products", "cost_hours", "cost_totals", "hour_totals", "hour_tallies"):
        op.drop_table(table)
    op.drop_index("ix_batch_totals_uncosted", "batch_totals")
    op.drop_column("batch_totals", "num_costed")


def _hour() -> list[sa.Column[object]]:
    return [
        sa.Column("worker", sa.Text(), nullable=False),
        sa.Column("hour", sa.DateTime(timezone=True), nullable=False),
        sa.Column("direct_nanodollars", sa.BigInteger(), nullable=False),
        sa.Column("overhead_nanodollars", sa.BigInteger(), nullable=False),
    ]
