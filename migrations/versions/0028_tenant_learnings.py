"""tenant_learnings: what the ended batches of a tenant taught, so that the next one need not begin from nothing

Revision ID: 0028
Revises: 0025
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0028"
down_revision = "0025"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "tenant_learnings",
        sa.Column("tenant_id", sa.Text(), nullable=False),
        sa.Column("scope", sa.Text(), nullable=False, comment="names the weights and the strategy of the jobs"),
        sa.Column("sums", postgresql.JSONB(), nullable=False, comment="{name: number}, as of learnt_at"),
        sa.Column("learnt_at", sa.DateTime(timezone=True), nullable=False, comment="they halve with every week since"),
        sa.ForeignKeyConstraint(["tenant_id"], ["tenants.id"], name="fk_tenant_learnings_tenant_id"),
        sa.PrimaryKeyConstraint("tenant_id", "scope", name="pk_tenant_learnings"),
    )


def downgrade() -> None:
    op.drop_table("tenant_learnings")
