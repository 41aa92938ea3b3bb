"""A budget's limits, and what is spent and reserved of them."""

from __future__ import annotations

from ponder.domain.budget import Limit
from ponder.domain.storable import JsonObject


def limit_object(limit: Limit) -> JsonObject:
    return {
        "limit_tokens": limit.tokens,
        "spent_tokens": limit.spent.tokens,
        "reserved_tokens": limit.reserved_tokens,
        "limit_nanodollars": limit.nanodollars,
        "spent_nanodollars": limit.spent.nanodollars,
        "reserved_nanodollars": limit.reserved_nanodollars,
    }
