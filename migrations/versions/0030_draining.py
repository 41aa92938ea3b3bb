"""incarnations: until when a worker may finish what it holds, once it was asked to leave

Revision ID: 0030
Revises: 0029
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0030"
down_revision = "0029"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column(
        "incarnations",
        sa.Column(
            "drain_until", sa.DateTime(timezone=True), comment="it was asked to leave: claims no more, is gone by then"
        ),
    )


def downgrade() -> None:
    op.drop_column("incarnations", "drain_until")
