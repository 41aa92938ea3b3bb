from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from ponder.errors import Conflict, InvalidInput, UnknownMachine
from ponder.ledger.book import check
from ponder.ledger.price_book import list_prices, price_at, set_price


def test_machines_of_the_shipped_book_have_both_markets_and_a_source(world: Any) -> None:
    with world.engine.begin() as connection:
        prices = list_prices(connection)
    markets = {(price.machine, price.market) for price in prices}
    for machine in ("cpu", "t4", "l4", "a100", "h100", "h200"):
        assert {(machine, "on_demand"), (machine, "spot")} <= markets
    assert all(price.source and price.nanodollars_per_hour > 0 for price in prices)


def test_a_price_holds_from_its_date_on(world: Any) -> None:
    with world.engine.begin() as connection:
        old = price_at(connection, "cpu", "spot")
        for year, amount in ((2026, 7), (2099, 9)):
            moment = datetime(year, 1, 1, tzinfo=UTC)
            set_price(connection, "cpu", "spot", amount, source="test", valid_from=moment)
        assert price_at(connection, "cpu", "spot", datetime(2025, 12, 31, tzinfo=UTC)) == old
        assert price_at(connection, "cpu", "spot").nanodollars_per_hour == 7
        assert price_at(connection, "cpu", "spot", datetime(2100, 1, 1, tzinfo=UTC)).nanodollars_per_hour == 9
        in_force = {(price.machine, price.market): price.nanodollars_per_hour for price in list_prices(connection)}
        assert in_force["cpu", "spot"] == 7
        assert len(list_prices(connection, history=True)) == len(in_force) + 2


def test_a_new_price_changes_no_running_bill(world: Any) -> None:
    worker = world.worker(machine="cpu")
    before = world.billed(worker)
    with world.engine.begin() as connection:
        set_price(connection, "cpu", "spot", 10**15, source="test")
    world.tick(worker)
    with world.engine.begin() as connection:
        assert before <= check(connection, worker) < 10**9


def test_an_unknown_machine_is_answered_with_the_known_ones(world: Any) -> None:
    with pytest.raises(UnknownMachine, match=r"'abacus'.*h200 \(spot\)"):
        world.worker(machine="abacus")


def test_prices_are_never_rewritten_and_never_nonsense(world: Any) -> None:
    moment = datetime(2026, 1, 1, tzinfo=UTC)
    with world.engine.begin() as connection:
        set_price(connection, "tpu", "spot", 1, source="test", valid_from=moment)
        with pytest.raises(Conflict):
            set_price(connection, "tpu", "spot", 2, source="test", valid_from=moment)
        with pytest.raises(InvalidInput, match="on_demand, spot"):
            set_price(connection, "tpu", "black", 2, source="test")
        for amount in (-1, 2**63):
            with pytest.raises(InvalidInput, match="zero or more"):
                set_price(connection, "tpu", "spot", amount, source="test")
