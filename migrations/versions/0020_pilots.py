"""pilots of batches, and what projections rest on: the jobs of a batch by cell, and what those settled took

Revision ID: 0020
Revises: 0019
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0020"
down_revision = "0019"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "pilots",
        _batch(),
        sa.Column(
            "job_ids", postgresql.ARRAY(sa.BigInteger()), nullable=False, comment="drawn at random; they run first"
        ),
        sa.Column("must_confirm", sa.Boolean(), nullable=False, comment="the batch waits for a yes after them"),
        sa.Column(
            "state", sa.Text(), nullable=False, server_default="running", comment="running | waiting | passed | stopped"
        ),
        sa.Column("reason", sa.Text(), comment="why it waits: confirm | over_budget | failed"),
        sa.Column("estimate", postgresql.JSONB(), comment="of the whole batch, made when the last of them settled"),
        sa.Column("concluded_at", sa.DateTime(timezone=True)),
        sa.PrimaryKeyConstraint("batch_id", name="pk_pilots"),
        sa.ForeignKeyConstraint(["batch_id"], ["batches.id"], name="fk_pilots_batch_id"),
    )
    op.create_index(
        "ix_pilots_open", "pilots", ["batch_id"], postgresql_where=sa.text("state IN ('running', 'waiting')")
    )
    op.create_table(
        "surveys",
        _batch(),
        sa.Column("document", postgresql.JSONB(), nullable=False, comment="the jobs of a batch, added up by cell"),
        sa.PrimaryKeyConstraint("batch_id", name="pk_surveys"),
        sa.ForeignKeyConstraint(["batch_id"], ["batches.id"], name="fk_surveys_batch_id"),
    )
    op.create_table(
        "batch_experience",
        _batch(),
        sa.Column("fingerprint", sa.Text(), nullable=False),
        sa.Column("strategy", sa.Text(), nullable=False, comment="as in experience"),
        sa.Column("level", sa.Text(), nullable=False, comment="as in experience"),
        sa.Column(
            "sums",
            postgresql.JSONB(),
            nullable=False,
            comment="{name: number}, each the sum over completed jobs of the batch",
        ),
        sa.PrimaryKeyConstraint("batch_id", "fingerprint", "strategy", "level", name="pk_batch_experience"),
        sa.ForeignKeyConstraint(["batch_id"], ["batches.id"], name="fk_batch_experience_batch_id"),
    )
    op.add_column("observations", sa.Column("batch_id", sa.Text(), comment="null: before this was kept"))
    op.create_foreign_key("fk_observations_batch_id", "observations", "batches", ["batch_id"], ["id"])


def downgrade() -> None:
    op.drop_column("observations", "batch_id")
    for table in ("batch_experience", "surveys", "pilots"):
        op.drop_table(table)


def _batch() -> sa.Column[str]:
    return sa.Column("batch_id", sa.Text(), nullable=False)
