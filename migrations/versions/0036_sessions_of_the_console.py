"""sessions of the console, and the links that sign in to it once

Revision ID: 0036
Revises: 0035
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0036"
down_revision = "0035"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "console_sessions",
        sa.Column("sha256", sa.LargeBinary, nullable=False, comment="of the cookie's token"),
        sa.Column("key_id", sa.Text, nullable=False, comment="the session ends with this key"),
        sa.Column("viewed_tenant_id", sa.Text, comment="that an operator chose; null: the key's own"),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False, server_default=sa.text("clock_timestamp()")),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("sha256", name="pk_console_sessions"),
        sa.ForeignKeyConstraint(["key_id"], ["api_keys.id"], name="fk_console_sessions_key_id_api_keys"),
        sa.ForeignKeyConstraint(
            ["viewed_tenant_id"], ["tenants.id"], name="fk_console_sessions_viewed_tenant_id_tenants"
        ),
    )
    op.create_table(
        "sign_in_links",
        sa.Column("sha256", sa.LargeBinary, nullable=False, comment="of the link's token, which signs in once"),
        sa.Column("key_id", sa.Text, nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("sha256", name="pk_sign_in_links"),
        sa.ForeignKeyConstraint(["key_id"], ["api_keys.id"], name="fk_sign_in_links_key_id_api_keys"),
    )
    for table in ("console_sessions", "sign_in_links"):
        op.create_index(f"ix_{table}_expires_at", table, ["expires_at"])


def downgrade() -> None:
    op.drop_table("sign_in_links")
    op.drop_table("console_sessions")
