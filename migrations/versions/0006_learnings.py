"""learnings: what the settled jobs of a batch have taught about the others

Revision ID: 0006
Revises: 0005
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "learnings",
        sa.Column("batch_id", sa.Text(), nullable=False),
        sa.Column("sums", postgresql.JSONB(), nullable=False, comment="{name: number}, each the sum over settled jobs"),
        sa.ForeignKeyConstraint(["batch_id"], ["batches.id"], name="fk_learnings_batch_id"),
        sa.PrimaryKeyConstraint("batch_id", name="pk_learnings"),
    )


def downgrade() -> None:
    op.drop_table("learnings")
