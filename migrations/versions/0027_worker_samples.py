"""worker_samples: the load of workers over time; attempts: an index by worker, for who may see it

Revision ID: 0027
Revises: 0026
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0027"
down_revision = "0026"
branch_labels = None
depends_on = None

_GAUGES = ("num_running", "num_waiting")
_COUNTS = (
    "prompt_tokens",
    "generated_tokens",
    "computed_tokens",
    "num_steps",
    "num_preemptions",
    "prefix_queries",
    "prefix_hits",
)


def upgrade() -> None:
    op.create_table(
        "worker_samples",
        sa.Column("incarnation_id", sa.Text(), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("seconds", sa.Double(), nullable=False, comment="that its counts cover, up to `at`"),
        sa.Column("kv_usage", sa.Double(), nullable=False, comment="share of the generator's pages that are held"),
        *(sa.Column(name, sa.Integer(), nullable=False) for name in _GAUGES),
        *(sa.Column(name, sa.BigInteger(), nullable=False) for name in _COUNTS),
        sa.Column("memory_bytes", sa.BigInteger(), nullable=False, comment="of the engine process or on its GPU"),
        sa.PrimaryKeyConstraint("incarnation_id", "at", name="pk_worker_samples"),
        sa.ForeignKeyConstraint(
            ["incarnation_id"], ["incarnations.id"], name="fk_worker_samples_incarnation_id"
        ),
    )
    op.create_index("ix_worker_samples_at", "worker_samples", ["at"])
    op.create_index("ix_attempts_incarnation", "attempts", ["incarnation_id", "started_at"])


def downgrade() -> None:
    op.drop_index("ix_attempts_incarnation", "attempts")
    op.drop_table("worker_samples")
