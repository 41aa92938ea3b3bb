"""exhaustions: which budgets have kept which batches from going on, so that each is announced once

Revision ID: 0025
Revises: 0024
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0025"
down_revision = "0024"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "exhaustions",
        sa.Column("batch_id", sa.Text(), nullable=False),
        sa.Column("budget", sa.Text(), nullable=False, comment="that kept the batch from going on"),
        sa.Column("renews_at", sa.DateTime(timezone=True), comment="the end of the day or month; null: of a batch"),
        sa.Column("limit_tokens", sa.BigInteger()),
        sa.Column("limit_nanodollars", sa.BigInteger()),
        sa.ForeignKeyConstraint(["batch_id"], ["batches.id"], name="fk_exhaustions_batch_id"),
        sa.UniqueConstraint(
            "batch_id", "budget", "renews_at", "limit_tokens", "limit_nanodollars", name="uq_exhaustions_once",
            postgresql_nulls_not_distinct=True,
        ),
    )


def downgrade() -> None:
    op.drop_table("exhaustions")
