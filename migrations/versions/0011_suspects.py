"""shards: whether a shard runs alone

Revision ID: 0011
Revises: 0010
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column(
        "shards",
        sa.Column(
            "runs_alone", sa.Boolean(), server_default=sa.text("false"), nullable=False,
            comment="its job was lost twice: whoever holds it holds nothing else",
        ),
    )


def downgrade() -> None:
    op.drop_column("shards", "runs_alone")
