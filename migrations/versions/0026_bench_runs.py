"""bench_runs: what `ponder bench` measured, as documents; usage: when a job's search ended

Revision ID: 0026
Revises: 0025
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSON

revision = "0026"
down_revision = "0025"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "bench_runs",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("tenant_id", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False, comment="of the suite"),
        sa.Column("document", JSON(), nullable=False, comment="settings, batches and figures; no prompt or answer"),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False, server_default=sa.func.clock_timestamp()),
        sa.PrimaryKeyConstraint("id", name="pk_bench_runs"),
        sa.ForeignKeyConstraint(["tenant_id"], ["tenants.id"], name="fk_bench_runs_tenant_id"),
    )
    op.add_column(
        "usage",
        sa.Column("ended_at", sa.DateTime(timezone=True), comment="when the search ended, before the answer was verified"),
    )
    op.create_index("ix_bench_runs_tenant", "bench_runs", ["tenant_id", "created_at"])


def downgrade() -> None:
    op.drop_column("usage", "ended_at")
    op.drop_table("bench_runs")
