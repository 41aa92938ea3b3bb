"""speculated: a kind of work that nobody asked for in the end

Revision ID: 0007
Revises: 0006
"""

from __future__ import annotations

from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

_KINDS = "work | recomputed | {}cancelled | duplicate | idle | loading | draining | lost"


def upgrade() -> None:
    op.alter_column("ledger_entries", "kind", comment=_KINDS.format("speculated | "))


def downgrade() -> None:
    op.alter_column("ledger_entries", "kind", comment=_KINDS.format(""))
