"""batches: up to which line rows have followed the end of their batch

Revision ID: 0012
Revises: 0011
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column(
        "batches",
        sa.Column(
            "followed_line", sa.Integer(),
            comment="of a batch that was cancelled or has expired: the pending jobs up to here have ended; null: all have",
        ),
    )
    op.create_index(
        "ix_batches_followed", "batches", ["followed_line"], postgresql_where=sa.text("followed_line IS NOT NULL")
    )
    # What was being cancelled by the code before.
    op.execute("UPDATE batches SET followed_line = 0 WHERE state = 'cancelling'")


def downgrade() -> None:
    op.drop_index("ix_batches_followed", "batches")
    op.drop_column("batches", "followed_line")
