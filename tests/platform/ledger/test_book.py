from __future__ import annotations

from typing import Any

import pytest

from ponder.errors import LedgerImbalance, NotFound
from ponder.ledger.book import check


def test_a_missing_nanodollar_is_noticed(world: Any) -> None:
    worker = world.worker()
    world.tick(worker)
    world.billed(worker)
    world.sql("UPDATE ledger_entries SET nanodollars = nanodollars + 1 WHERE id = (SELECT max(id) FROM ledger_entries)")
    with pytest.raises(LedgerImbalance, match=worker):
        world.billed(worker)


def test_an_unknown_incarnation_has_no_bill(world: Any) -> None:
    with pytest.raises(NotFound), world.engine.begin() as connection:
        check(connection, "inc_nobody")
