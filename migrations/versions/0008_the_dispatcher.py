"""dispatcher: when it was last seen, and what it fails at

Revision ID: 0008
Revises: 0007
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "dispatcher",
        sa.Column("is_only", sa.Boolean(), server_default=sa.text("true"), nullable=False, comment="true: there is one row"),
        sa.Column("seen_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("error", sa.Text(), comment="the last one; it may be over"),
        sa.Column("error_at", sa.DateTime(timezone=True)),
        sa.Column("failing_since", sa.DateTime(timezone=True), comment="null: its last round was well"),
        sa.CheckConstraint("is_only", name="is_only"),
        sa.PrimaryKeyConstraint("is_only", name="pk_dispatcher"),
    )


def downgrade() -> None:
    op.drop_table("dispatcher")
