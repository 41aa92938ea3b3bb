"""batches: no state `finalizing`, which was never stored

Revision ID: 0015
Revises: 0014
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0015"
down_revision = "0014"
branch_labels = None
depends_on = None


def upgrade() -> None:
    _index_open("'validating','in_progress','cancelling'")


def downgrade() -> None:
    _index_open("'validating','in_progress','finalizing','cancelling'")


def _index_open(states: str) -> None:
    op.drop_index("ix_batches_open", table_name="batches")
    op.create_index("ix_batches_open", "batches", ["state"], postgresql_where=sa.text(f"state IN ({states})"))
