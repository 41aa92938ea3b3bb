"""fleet_scope: what the plans of the active autoscaler keep to; counter_tallies, counter_totals: sums for metrics

Revision ID: 0034
Revises: 0033
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0034"
down_revision = "0033"
branch_labels = None
depends_on = None

_PREEMPTED = "^((aws|gcp|azure)( [a-z]+)? (notice|recommendation)|SIGTERM|SIGINT|its lease expired)"


def _counter() -> list[sa.Column[object]]:
    return [
        sa.Column("counter", sa.Text(), nullable=False, comment="spent | preempted"),
        sa.Column("label", sa.Text(), nullable=False, comment="the kind of cost, the reason"),
        sa.Column("amount", sa.Numeric(), nullable=False),
    ]


def upgrade() -> None:
    op.create_table(
        "fleet_scope",
        sa.Column(
            "is_only", sa.Boolean(), nullable=False, server_default=sa.text("true"), comment="true: there is one row"
        ),
        sa.Column("pid", sa.Integer(), nullable=False, comment="of the backend that holds the active autoscaler's lock"),
        sa.Column("models", JSONB(), nullable=False, comment="those that it looks after; empty: all that are known"),
        sa.Column("min_workers", sa.Integer(), nullable=False),
        sa.Column("max_workers", sa.Integer()),
        sa.Column("max_nanodollars_per_hour", sa.BigInteger()),
        sa.Column("named", JSONB(), nullable=False, comment="pairs of machine and market: the operator's"),
        sa.Column("offered", JSONB(), nullable=False, comment="likewise: those that its provider can start"),
        sa.PrimaryKeyConstraint("is_only", name="pk_fleet_scope"),
        sa.CheckConstraint("is_only", name="is_only"),
    )
    op.create_table(
        "counter_tallies",
        sa.Column("id", sa.BigInteger(), sa.Identity(), nullable=False),
        *_counter(),
        sa.PrimaryKeyConstraint("id", name="pk_counter_tallies"),
    )
    op.create_table("counter_totals", *_counter(), sa.PrimaryKeyConstraint("counter", "label", name="pk_counter_totals"))
    op.execute(
        "INSERT INTO counter_totals (counter, label, amount) "
        "SELECT 'spent', kind, sum(nanodollars) FROM ledger_entries GROUP BY kind"
    )
    op.execute(
        "INSERT INTO counter_totals (counter, label, amount) "
        "SELECT 'preempted', reason, count(*) "
        f"FROM incarnations CROSS JOIN substring(end_reason FROM '{_PREEMPTED}') AS reason "
        "WHERE state = 'ended' AND reason IS NOT NULL GROUP BY reason"
    )
    op.create_index(
        "ix_incarnations_spot_ended", "incarnations", ["ended_at"], postgresql_where=sa.text("market = 'spot'")
    )


def downgrade() -> None:
    op.drop_index("ix_incarnations_spot_ended", "incarnations")
    op.drop_table("counter_totals")
    op.drop_table("counter_tallies")
    op.drop_table("fleet_scope")
