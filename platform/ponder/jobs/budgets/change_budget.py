"""Sets the budgets of tenants and keys, which begin anew each day or month."""

from __future__ import annotations

from sqlalchemy import Connection, text

from ponder.domain.budget import PERIODS, RenewingBudget

# Claims of the tenant wait, so that none reserves by a limit that is just being lowered.
_LOCK = text("SELECT id FROM tenants WHERE id = :tenant_id FOR NO KEY UPDATE")

_LIMITS = text("""
    SELECT period, limit_tokens, limit_nanodollars FROM budgets
    WHERE tenant_id = :tenant_id AND key_id IS NOT DISTINCT FROM CAST(:key_id AS text)
""")

_LIFT = text("""
    DELETE FROM budgets
    WHERE tenant_id = :tenant_id AND key_id IS NOT DISTINCT FROM CAST(:key_id AS text) AND period = :period
""")

_SET = text("""
    INSERT INTO budgets (tenant_id, key_id, period, limit_tokens, limit_nanodollars)
    VALUES (:tenant_id, :key_id, :period, :tokens, :nanodollars)
    ON CONFLICT (tenant_id, key_id, period)
    DO UPDATE SET limit_tokens = excluded.limit_tokens, limit_nanodollars = excluded.limit_nanodollars
""")


def change_budget(connection: Connection, tenant_id: str, key_id: str | None, wanted: RenewingBudget) -> None:
    """Changes the limits that the request names, of a tenant or of one of its keys. Those that are None are lifted.

    Running jobs that a lowered budget has no room for are handed back at their workers' next ticks.
    """
    owner = {"tenant_id": tenant_id, "key_id": key_id}
    connection.execute(_LOCK, owner)
    limits = {row.period: (row.limit_tokens, row.limit_nanodollars) for row in connection.execute(_LIMITS, owner)}
    for period in PERIODS:
        tokens, nanodollars = wanted.of(period).replacing(*limits.get(period, (None, None)))
        values = owner | {"period": period, "tokens": tokens, "nanodollars": nanodollars}
        connection.execute(_LIFT if tokens is None and nanodollars is None else _SET, values)
