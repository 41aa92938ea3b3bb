"""fleet_scope: what the plans of the active autoscaler keep to

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


def downgrade() -> None:
    op.drop_table("fleet_scope")
