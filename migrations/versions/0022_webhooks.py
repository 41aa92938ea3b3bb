"""webhooks: where a tenant's events go, and the messages that are not delivered yet

Revision ID: 0022
Revises: 0021
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0022"
down_revision = "0021"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "webhooks",
        sa.Column("tenant_id", sa.Text(), nullable=False),
        sa.Column("url", sa.Text(), comment="null: only batches that name one of their own have a webhook"),
        sa.Column(
            "salt", sa.LargeBinary(), nullable=False, comment="the secret is made from it and the operator's key"
        ),
        sa.Column("previous_salt", sa.LargeBinary(), comment="signs for a day after a new secret was made"),
        sa.Column(
            "key_check", sa.LargeBinary(), nullable=False, comment="tells whether the operator's key is still the same"
        ),
        _moment("secret_made_at"),
        sa.Column("last_delivered_at", sa.DateTime(timezone=True)),
        sa.Column("last_error", sa.Text(), comment="of an attempt; it may be over"),
        sa.Column("last_error_at", sa.DateTime(timezone=True)),
        sa.PrimaryKeyConstraint("tenant_id", name="pk_webhooks"),
        sa.ForeignKeyConstraint(["tenant_id"], ["tenants.id"], name="fk_webhooks_tenant_id"),
    )
    op.create_table(
        "webhook_messages",
        sa.Column("id", sa.BigInteger(), sa.Identity(), nullable=False),
        sa.Column(
            "message_id", sa.Text(), nullable=False, comment="the same in all attempts",
            server_default=sa.text("'msg_' || replace(CAST(gen_random_uuid() AS text), '-', '')"),
        ),
        sa.Column("tenant_id", sa.Text(), nullable=False),
        sa.Column("url", sa.Text(), comment="of the batch; null: the tenant's"),
        sa.Column("body", sa.Text(), nullable=False, comment="as it is signed and sent"),
        sa.Column("num_attempts", sa.Integer(), nullable=False, server_default="0"),
        _moment("due_at"),
        _moment("created_at"),
        sa.PrimaryKeyConstraint("id", name="pk_webhook_messages"),
        sa.UniqueConstraint("message_id", name="uq_webhook_messages_message_id"),
        sa.ForeignKeyConstraint(["tenant_id"], ["webhooks.tenant_id"], name="fk_webhook_messages_tenant_id"),
    )
    op.create_index("ix_webhook_messages_due_at", "webhook_messages", ["due_at"])


def downgrade() -> None:
    op.drop_table("webhook_messages")
    op.drop_table("webhooks")


def _moment(name: str) -> sa.Column[object]:
    return sa.Column(
        name, sa.DateTime(timezone=True), nullable=False, server_default=sa.text("clock_timestamp()")
    )
