"""batches: budgets and pauses

Revision ID: 0016
Revises: 0015
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0016"
down_revision = "0015"
branch_labels = None
depends_on = None

_LEAST = "that a budget must have left for one of its jobs; null: unknown"


def upgrade() -> None:
    op.add_column(
        "batches", sa.Column("limit_tokens", sa.BigInteger(), comment="of the batch's budget, over all its jobs")
    )
    op.add_column(
        "batches", sa.Column("limit_nanodollars", sa.BigInteger(), comment="of the batch's budget, over all its jobs")
    )
    op.add_column("batches", sa.Column("paused_at", sa.DateTime(timezone=True)))
    op.add_column(
        "batches",
        sa.Column(
            "exhausted_at",
            sa.DateTime(timezone=True),
            comment="since when its budget admits no job, and none runs",
        ),
    )
    for table in ("portions", "shards"):
        op.add_column(table, sa.Column("least_tokens", sa.BigInteger(), comment=_LEAST))
    op.add_column(
        "attempts",
        sa.Column(
            "reserved_tokens",
            sa.BigInteger(),
            comment="of the batch's budget, less what was drawn; null: no such limit",
        ),
    )
    op.add_column("attempts", sa.Column("reserved_nanodollars", sa.BigInteger(), comment="likewise"))


def downgrade() -> None:
    for table, names in {
        "attempts": ("reserved_nanodollars", "reserved_tokens"),
        "shards": ("least_tokens",),
        "portions": ("least_tokens",),
        "batches": ("exhausted_at", "paused_at", "limit_nanodollars", "limit_tokens"),
    }.items():
        for name in names:
            op.drop_column(table, name)
