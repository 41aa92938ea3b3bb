"""shards: whether a shard runs alone

Revision ID: 0022
Revises: 0021
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0022"
down_revision = "0021"
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
