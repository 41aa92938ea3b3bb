"""api_keys: a role instead of a mark for operators

Revision ID: 0014
Revises: 0013
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0014"
down_revision = "0013"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column(
        "api_keys",
        sa.Column("role", sa.Text(), server_default="submit", nullable=False, comment="operator | submit | read"),
    )
    op.execute("UPDATE api_keys SET role = 'operator' WHERE is_operator")
    op.create_check_constraint("role", "api_keys", "role IN ('operator', 'submit', 'read')")
    op.drop_column("api_keys", "is_operator")


def downgrade() -> None:
    op.add_column("api_keys", sa.Column("is_operator", sa.Boolean(), server_default=sa.text("false"), nullable=False))
    op.execute("UPDATE api_keys SET is_operator = true WHERE role = 'operator'")
    op.drop_column("api_keys", "role")
