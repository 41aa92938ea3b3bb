"""Warns once when 80 and 100 percent of a budget are spent, and when it keeps a batch from going on."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from sqlalchemy import Connection, text

from ponder.domain.budget import Allowance, Limit
from ponder.store.document import dumps

_PERCENTS = (80, 100)

# A limit that was changed is another one, and so is that of the next day: both are warned of again.
_WARN = text("""
    INSERT INTO budget_warnings (tenant_id, batch_id, key_id, budget, renews_at, measure, percent, amount, share)
    SELECT coalesce(batches.tenant_id, api_keys.tenant_id, owner_id), batches.id, api_keys.id, budget, renews_at,
           measure, percent, amount, share
    FROM json_to_recordset(CAST(:crossed AS json)) AS crossed(
        budget text, owner_id text, renews_at timestamptz, measure text, percent int, amount bigint, share float8)
    LEFT JOIN batches ON batches.id = owner_id
    LEFT JOIN api_keys ON api_keys.id = owner_id
    ORDER BY budget, owner_id, measure DESC, percent
    ON CONFLICT DO NOTHING
    RETURNING id
""")

_NOTE = text("""
    INSERT INTO exhaustions (batch_id, budget, renews_at, limit_tokens, limit_nanodollars)
    SELECT exhausted.* FROM json_to_recordset(CAST(:exhausted AS json)) AS exhausted(
        batch_id text, budget text, renews_at timestamptz, limit_tokens bigint, limit_nanodollars bigint)
    JOIN batches ON batches.id = batch_id AND exhausted_at IS NOT NULL
    ORDER BY batch_id
    ON CONFLICT DO NOTHING
    RETURNING batch_id
""")


def warn(connection: Connection, allowances: Iterable[Allowance]) -> list[int]:
    """Records which budgets have just passed a threshold. Returns the ids of the new warnings."""
    limits = {(limit.budget, limit.owner_id): limit for allowance in allowances for limit in allowance.limits}
    crossed = [row for limit in limits.values() for row in _crossed(limit)]
    if not crossed:
        return []
    return list(connection.execute(_WARN, {"crossed": dumps(crossed)}).scalars())


def note_exhausted(connection: Connection, exhausted: Mapping[str, Limit]) -> list[str]:
    """Records which budget keeps each exhausted batch from going on.

    Returns the batches that this budget had not stopped before.
    """
    rows = [
        {
            "batch_id": batch_id,
            "budget": limit.budget.value,
            "renews_at": None if limit.renews_at is None else limit.renews_at.isoformat(),
            "limit_tokens": limit.tokens,
            "limit_nanodollars": limit.nanodollars,
        }
        for batch_id, limit in exhausted.items()
    ]
    return list(connection.execute(_NOTE, {"exhausted": dumps(rows)}).scalars()) if rows else []


def _crossed(limit: Limit) -> list[dict[str, object]]:
    amounts = {"tokens": limit.tokens, "dollars": limit.nanodollars}
    return [
        {
            "budget": limit.budget.value,
            "owner_id": limit.owner_id,
            "renews_at": None if limit.renews_at is None else limit.renews_at.isoformat(),
            "measure": measure,
            "percent": percent,
            "amount": amounts[measure],
            "share": share,
        }
        for measure, share in limit.shares.items()
        for percent in _PERCENTS
        if 100 * share >= percent
    ]
