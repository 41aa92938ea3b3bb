"""tokens so far: how much open jobs have generated, without reading their trees

Revision ID: 0003
Revises: 0002
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


# Of deltas that are there already; the root's ids are the prompt.
_COUNT = """
UPDATE tree_deltas SET batch_id = jobs.batch_id, num_tokens = (
    SELECT coalesce(sum(json_array_length(node -> 'ids')), 0)
    FROM json_array_elements(delta -> 'nodes') AS node WHERE node ->> 'node' <> '0'
)
FROM jobs WHERE jobs.id = tree_deltas.job_id
"""


def upgrade() -> None:
    op.add_column("tree_deltas", sa.Column("batch_id", sa.Text()))
    op.add_column(
        "tree_deltas",
        sa.Column("num_tokens", sa.BigInteger(), nullable=False, server_default="0", comment="that sampling added"),
    )
    op.execute(_COUNT)
    op.alter_column("tree_deltas", "batch_id", nullable=False)
    op.alter_column("tree_deltas", "num_tokens", server_default=None)
    op.create_foreign_key(op.f("fk_tree_deltas_batch_id"), "tree_deltas", "batches", ["batch_id"], ["id"])
    op.create_index("ix_tree_deltas_batch", "tree_deltas", ["batch_id"])


def downgrade() -> None:
    op.drop_index("ix_tree_deltas_batch", table_name="tree_deltas")
    op.drop_column("tree_deltas", "num_tokens")
    op.drop_column("tree_deltas", "batch_id")
