"""uncut tokens: the estimated tokens of a portion's jobs that are in no shard yet, so that nobody need add up jobs

Revision ID: 0032
Revises: 0031
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0032"
down_revision = "0031"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column(
        "portions",
        sa.Column(
            "uncut_tokens",
            sa.BigInteger(),
            nullable=False,
            server_default="0",
            comment="estimated, of the jobs that are in no shard yet",
        ),
    )
    op.execute("""
        UPDATE portions SET uncut_tokens = (
            SELECT coalesce(sum(estimated_tokens), 0) FROM jobs
            WHERE jobs.batch_id = portions.batch_id AND jobs.model = portions.model
              AND jobs.fingerprint = portions.fingerprint AND line > cut_until
              AND id NOT IN (SELECT unnest(job_ids) FROM pilots WHERE pilots.batch_id = portions.batch_id)
        )
        WHERE cut_until < last_line
    """)


def downgrade() -> None:
    op.drop_column("portions", "uncut_tokens")
