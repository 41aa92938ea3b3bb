"""fleet_workers, fleet_decisions: the workers that the autoscaler ordered, and the log of its decisions

Revision ID: 0031
Revises: 0030
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0031"
down_revision = "0030"
branch_labels = None
depends_on = None


def _timestamp(name: str, comment: str | None = None) -> sa.Column[object]:
    return sa.Column(name, sa.DateTime(timezone=True), comment=comment)


def _now(name: str) -> sa.Column[object]:
    return sa.Column(name, sa.DateTime(timezone=True), nullable=False, server_default=sa.func.clock_timestamp())


def _pool() -> list[sa.Column[object]]:
    return [sa.Column(name, sa.Text(), nullable=False) for name in ("model", "machine", "market")]


def upgrade() -> None:
    op.create_table(
        "fleet_workers",
        sa.Column("id", sa.Text(), nullable=False),
        *_pool(),
        sa.Column("worker", sa.Text(), comment="the name under which it registers; null: not yet known"),
        sa.Column("handle", sa.Text(), comment="the provider's own name of it"),
        sa.Column("nanodollars_per_hour", sa.BigInteger(), nullable=False),
        _now("ordered_at"),
        _timestamp("told_at", "since when the provider knows of it"),
        _timestamp("seen_at", "when the provider first had it"),
        _timestamp("ready_at"),
        _timestamp("leave_by", "the end of its draining"),
        _timestamp("stop_at", "since when it is to be stopped"),
        _timestamp("stopped_at", "when the provider last said that it stops it"),
        sa.Column("num_tries", sa.Integer(), nullable=False, server_default="0", comment="to stop it, in vain"),
        _timestamp("retry_at", "when the provider is asked again to stop it"),
        _timestamp("ended_at"),
        sa.Column("has_failed", sa.Boolean(), nullable=False, server_default=sa.text("false")),
        sa.PrimaryKeyConstraint("id", name="pk_fleet_workers"),
    )
    op.create_index(
        "ix_fleet_workers_open", "fleet_workers", ["ordered_at"], postgresql_where=sa.text("ended_at IS NULL")
    )
    op.create_index("ix_fleet_workers_ordered_at", "fleet_workers", ["ordered_at"])
    op.create_index("ix_fleet_workers_worker", "fleet_workers", ["worker"])
    op.create_index("ix_incarnations_worker", "incarnations", ["worker", "started_at"])
    op.create_table(
        "fleet_decisions",
        sa.Column("id", sa.BigInteger(), sa.Identity(), nullable=False),
        _now("at"),
        sa.Column("action", sa.Text(), nullable=False, comment="start | ready | drain | stop | give up | ended | failed"),
        *_pool(),
        sa.Column("worker", sa.Text(), comment="of fleet_workers, or a name that nobody ordered; null: none yet"),
        sa.Column("reason", sa.Text(), nullable=False, comment="in plain words"),
        sa.PrimaryKeyConstraint("id", name="pk_fleet_decisions"),
    )
    op.create_index("ix_fleet_decisions_at", "fleet_decisions", ["at"])


def downgrade() -> None:
    op.drop_table("fleet_decisions")
    op.drop_index("ix_incarnations_worker", "incarnations")
    op.drop_table("fleet_workers")
