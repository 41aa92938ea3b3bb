"""pulse: since when nobody could write, so that an outage of Postgres is told from the death of a worker

Revision ID: 0009
Revises: 0008
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "pulse",
        sa.Column("is_only", sa.Boolean(), server_default=sa.text("true"), nullable=False, comment="true: there is one row"),
        sa.Column("beat_at", sa.DateTime(timezone=True), nullable=False, comment="when a dispatcher last wrote this"),
        sa.Column("lease_s", sa.Double(), nullable=False, comment="of that dispatcher's settings"),
        sa.Column("outage_from", sa.DateTime(timezone=True), comment="the last outage: the beat before it"),
        sa.Column("grace_until", sa.DateTime(timezone=True), comment="a lease after the beat that ended it"),
        sa.CheckConstraint("is_only", name="is_only"),
        sa.PrimaryKeyConstraint("is_only", name="pk_pulse"),
    )


def downgrade() -> None:
    op.drop_table("pulse")
