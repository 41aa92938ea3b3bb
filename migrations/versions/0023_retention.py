"""retention: how long results are kept, and what is deleted already

Revision ID: 0023
Revises: 0022
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0023"
down_revision = "0022"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column(
        "tenants",
        sa.Column(
            "output_expires_after_s",
            sa.Integer(),
            comment="how long results of new batches are kept by default; null: for ever",
        ),
    )
    op.add_column(
        "batches",
        sa.Column("output_expires_after_s", sa.Integer(), comment="results are kept so long from its end on; null: for ever"),
    )
    op.add_column(
        "batches", sa.Column("pruned_at", sa.DateTime(timezone=True), comment="since when its results are deleted")
    )
    op.add_column(
        "batches",
        sa.Column(
            "pruned_line", sa.Integer(), comment="of a pruned batch: the rows up to here are deleted; null: all are"
        ),
    )
    op.create_index(
        "ix_batches_kept", "batches", ["id"],
        postgresql_where=sa.text("output_expires_after_s IS NOT NULL AND pruned_at IS NULL"),
    )
    op.create_index(
        "ix_batches_pruned", "batches", ["pruned_line"], postgresql_where=sa.text("pruned_line IS NOT NULL")
    )
    op.create_index("ix_batches_input_file_id", "batches", ["input_file_id"])
    op.add_column(
        "files",
        sa.Column(
            "is_erasing", sa.Boolean(), nullable=False, server_default=sa.text("false"),
            comment="deleted, and its chunks follow",
        ),
    )
    op.create_index("ix_files_erasing", "files", ["id"], postgresql_where=sa.text("is_erasing"))


def downgrade() -> None:
    op.drop_index("ix_files_erasing", "files")
    op.drop_column("files", "is_erasing")
    op.drop_index("ix_batches_input_file_id", "batches")
    op.drop_index("ix_batches_pruned", "batches")
    op.drop_index("ix_batches_kept", "batches")
    for name in ("pruned_line", "pruned_at", "output_expires_after_s"):
        op.drop_column("batches", name)
    op.drop_column("tenants", "output_expires_after_s")
