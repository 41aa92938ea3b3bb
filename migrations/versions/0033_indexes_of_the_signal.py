"""indexes of the signal: the loading of former workers and the interactive batches of the last day

Revision ID: 0033
Revises: 0032
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0033"
down_revision = "0032"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_index(
        "ix_ledger_entries_loading", "ledger_entries", ["incarnation_id"], postgresql_where=sa.text("kind = 'loading'")
    )
    op.create_index(
        "ix_batches_interactive", "batches", ["created_at"], postgresql_where=sa.text("lane = 'interactive'")
    )
    op.create_index("ix_incarnations_fingerprint", "incarnations", ["fingerprint", "started_at"])


def downgrade() -> None:
    op.drop_index("ix_incarnations_fingerprint", "incarnations")
    op.drop_index("ix_batches_interactive", "batches")
    op.drop_index("ix_ledger_entries_loading", "ledger_entries")
