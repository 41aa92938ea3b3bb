"""An index for what a tenant has stored.

Revision ID: 0013
Revises: 0012
"""

import sqlalchemy as sa
from alembic import op

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_index(
        "ix_files_stored",
        "files",
        ["tenant_id"],
        postgresql_include=["bytes"],
        postgresql_where=sa.text("kind = 'input' AND deleted_at IS NULL"),
    )


def downgrade() -> None:
    op.drop_index("ix_files_stored", table_name="files")
