"""budgets of keys and tenants, and what they spent each day

Revision ID: 0021
Revises: 0020
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0021"
down_revision = "0020"
branch_labels = None
depends_on = None

_SUMS = ("num_completed", "num_failed", "direct_nanodollars", "generated_tokens", "settled_nanodollars")
_RESERVED, _EXHAUSTED = "less what was drawn; null: no such limit", "and none runs"


def upgrade() -> None:
    op.add_column(
        "tallies",
        sa.Column(
            "day", sa.Date(), nullable=False,
            server_default=sa.text("CAST(clock_timestamp() AT TIME ZONE 'UTC' AS date)"),
            comment="of the budgets that it counts toward, in UTC",
        ),
    )
    op.create_table(
        "day_totals",
        *_owner("null: batches from before this was kept"),
        sa.Column("day", sa.Date(), nullable=False, comment="in UTC"),
        *(sa.Column(name, sa.BigInteger(), nullable=False, server_default="0") for name in _SUMS),
        sa.ForeignKeyConstraint(["tenant_id"], ["tenants.id"], name="fk_day_totals_tenant_id"),
        sa.ForeignKeyConstraint(["key_id"], ["api_keys.id"], name="fk_day_totals_key_id"),
        sa.UniqueConstraint(
            "tenant_id", "key_id", "day", name="uq_day_totals_tenant_id_key_id_day", postgresql_nulls_not_distinct=True
        ),
    )
    op.create_table(
        "budgets",
        *_owner("null: of the tenant, over all its keys"),
        sa.Column("period", sa.Text(), nullable=False, comment="day | month, in UTC"),
        sa.Column("limit_tokens", sa.BigInteger()),
        sa.Column("limit_nanodollars", sa.BigInteger()),
        sa.ForeignKeyConstraint(["tenant_id"], ["tenants.id"], name="fk_budgets_tenant_id"),
        sa.ForeignKeyConstraint(["key_id"], ["api_keys.id"], name="fk_budgets_key_id"),
        sa.UniqueConstraint(
            "tenant_id", "key_id", "period", name="uq_budgets_tenant_id_key_id_period",
            postgresql_nulls_not_distinct=True,
        ),
        sa.CheckConstraint("period IN ('day', 'month')", name="ck_budgets_period"),
        sa.CheckConstraint("limit_tokens IS NOT NULL OR limit_nanodollars IS NOT NULL", name="ck_budgets_limits"),
    )
    op.create_table(
        "budget_warnings",
        sa.Column("id", sa.BigInteger(), sa.Identity(), nullable=False),
        sa.Column("tenant_id", sa.Text(), nullable=False),
        sa.Column("batch_id", sa.Text(), comment="of a batch's own budget"),
        sa.Column("key_id", sa.Text(), comment="of a key's budget; both null: of the tenant's"),
        sa.Column(
            "budget", sa.Text(), nullable=False, comment="batch | key_day | key_month | tenant_day | tenant_month"
        ),
        sa.Column(
            "renews_at", sa.DateTime(timezone=True), comment="the end of the day or month; null: of a batch"
        ),
        sa.Column("measure", sa.Text(), nullable=False, comment="tokens | dollars"),
        sa.Column("percent", sa.Integer(), nullable=False, comment="80 | 100"),
        sa.Column("amount", sa.BigInteger(), nullable=False, comment="the limit, in tokens or nano-dollars"),
        sa.Column("share", sa.Double(), nullable=False, comment="of the limit, as it was found"),
        sa.Column(
            "warned_at", sa.DateTime(timezone=True), nullable=False, server_default=sa.text("clock_timestamp()")
        ),
        sa.PrimaryKeyConstraint("id", name="pk_budget_warnings"),
        *(
            sa.ForeignKeyConstraint([f"{owner}_id"], [f"{table}.id"], name=f"fk_budget_warnings_{owner}_id")
            for owner, table in {"tenant": "tenants", "batch": "batches", "key": "api_keys"}.items()
        ),
        sa.UniqueConstraint(
            "tenant_id", "batch_id", "key_id", "budget", "renews_at", "measure", "percent", "amount",
            name="uq_budget_warnings_once", postgresql_nulls_not_distinct=True,
        ),
    )
    _comment("attempts", "reserved_tokens", sa.BigInteger(), f"of each budget, {_RESERVED}")
    _comment("batches", "exhausted_at", sa.DateTime(timezone=True), f"since when a budget admits none of its jobs, {_EXHAUSTED}")


def downgrade() -> None:
    _comment("batches", "exhausted_at", sa.DateTime(timezone=True), f"since when its budget admits no job, {_EXHAUSTED}")
    _comment("attempts", "reserved_tokens", sa.BigInteger(), f"of the batch's budget, {_RESERVED}")
    op.drop_table("budget_warnings")
    op.drop_table("budgets")
    op.drop_table("day_totals")
    op.drop_column("tallies", "day")


def _owner(no_key: str) -> list[sa.Column[object]]:
    return [
        sa.Column("tenant_id", sa.Text(), nullable=False),
        sa.Column("key_id", sa.Text(), comment=no_key),
    ]


def _comment(table: str, name: str, type_: sa.types.TypeEngine[object], comment: str) -> None:
    op.alter_column(table, name, existing_type=type_, comment=comment)
