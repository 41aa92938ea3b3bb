"""experience: what completed jobs took, by cell, and the observations that are not folded into it yet

Revision ID: 0019
Revises: 0018
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0019"
down_revision = "0018"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "experience",
        *_cell(
            strategy="in canonical form; empty: of too many cells",
            level="empty: none, or of too many cells",
            sums="{name: number}, each the sum over completed jobs",
        ),
        sa.PrimaryKeyConstraint("tenant_id", "fingerprint", "strategy", "level", name="pk_experience"),
        sa.ForeignKeyConstraint(["tenant_id"], ["tenants.id"], name="fk_experience_tenant_id"),
    )
    op.create_table(
        "observations",
        sa.Column("id", sa.BigInteger(), sa.Identity(), nullable=False),
        *_cell(sums="{name: number}, of some completed jobs; folded into experience"),
        sa.PrimaryKeyConstraint("id", name="pk_observations"),
        sa.ForeignKeyConstraint(["tenant_id"], ["tenants.id"], name="fk_observations_tenant_id"),
    )
    op.create_index("ix_observations_cell", "observations", ["tenant_id", "fingerprint"])


def downgrade() -> None:
    op.drop_table("observations")
    op.drop_table("experience")


def _cell(*, sums: str, strategy: str | None = None, level: str | None = None) -> list[sa.Column[object]]:
    return [
        sa.Column("tenant_id", sa.Text(), nullable=False),
        sa.Column("fingerprint", sa.Text(), nullable=False),
        sa.Column("strategy", sa.Text(), nullable=False, comment=strategy),
        sa.Column("level", sa.Text(), nullable=False, comment=level),
        sa.Column("sums", postgresql.JSONB(), nullable=False, comment=sums),
    ]
