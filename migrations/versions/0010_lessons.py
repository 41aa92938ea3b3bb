"""lessons: what jobs taught, until it is folded into their batch's sums

Revision ID: 0010
Revises: 0009
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "lessons",
        sa.Column("id", sa.BigInteger(), sa.Identity(), nullable=False),
        sa.Column("batch_id", sa.Text(), nullable=False),
        sa.Column("sums", postgresql.JSONB(), nullable=False, comment="{name: number}, of some settled jobs"),
        sa.ForeignKeyConstraint(["batch_id"], ["batches.id"], name="fk_lessons_batch_id"),
        sa.PrimaryKeyConstraint("id", name="pk_lessons"),
    )
    op.create_index("ix_lessons_batch_id", "lessons", ["batch_id"])


def downgrade() -> None:
    op.drop_table("lessons")
