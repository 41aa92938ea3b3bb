"""quotas: how much of the fleet a tenant may have at a time

Revision ID: 0004
Revises: 0003
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    comment = "estimated tokens in flight at a time; null: no limit"
    op.add_column("tenants", sa.Column("quota_tokens", sa.BigInteger(), comment=comment))


def downgrade() -> None:
    op.drop_column("tenants", "quota_tokens")
