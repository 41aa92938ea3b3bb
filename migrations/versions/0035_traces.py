"""traces: the span that a batch was submitted in

Revision ID: 0035
Revises: 0034
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0035"
down_revision = "0034"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column(
        "batches",
        sa.Column("traceparent", sa.Text, comment="the span of its submission, as W3C writes it; null: not traced"),
    )


def downgrade() -> None:
    op.drop_column("batches", "traceparent")
