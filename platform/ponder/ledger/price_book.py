"""The price book: the price of a machine's hour, by date."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection, text

from ponder.errors import Conflict, InvalidInput, UnknownMachine

MARKETS = ("on_demand", "spot")


@dataclass(frozen=True, slots=True)
class Price:
    machine: str
    market: str
    valid_from: datetime
    nanodollars_per_hour: int
    source: str


_COLUMNS = "machine, market, valid_from, nanodollars_per_hour, source"

_IN_FORCE = text(f"""
    SELECT {_COLUMNS} FROM price_book
    WHERE machine = :machine AND market = :market
      AND valid_from <= coalesce(CAST(:at AS timestamptz), clock_timestamp())
    ORDER BY valid_from DESC LIMIT 1
""")

_ADD = text(f"""
    INSERT INTO price_book ({_COLUMNS})
    VALUES (:machine, :market, coalesce(CAST(:valid_from AS timestamptz), clock_timestamp()), :amount, :source)
    ON CONFLICT DO NOTHING
    RETURNING {_COLUMNS}
""")

_ALL = text(f"SELECT {_COLUMNS} FROM price_book ORDER BY machine, market, valid_from")

_ALL_IN_FORCE = text(f"""
    SELECT DISTINCT ON (machine, market) {_COLUMNS} FROM price_book
    WHERE valid_from <= clock_timestamp()
    ORDER BY machine, market, valid_from DESC
""")


def price_at(connection: Connection, machine: str, market: str, at: datetime | None = None) -> Price:
    """Returns the newest entry not after `at` (None means now). Raises UnknownMachine, which names the known ones."""
    row = connection.execute(_IN_FORCE, {"machine": machine, "market": market, "at": at}).one_or_none()
    if row is not None:
        return Price(*row)
    known = ", ".join(f"{price.machine} ({price.market})" for price in list_prices(connection))
    raise UnknownMachine(
        f"the price book has no price for machine {machine!r} on the market {market!r}; it knows: {known or 'none'}",
        param="machine",
        code="unknown_machine",
    )


def set_price(
    connection: Connection,
    machine: str,
    market: str,
    nanodollars_per_hour: int,
    *,
    source: str,
    valid_from: datetime | None = None,
) -> Price:
    """Adds a dated entry (None means now). Running incarnations keep their price. Raises InvalidInput or Conflict."""
    if market not in MARKETS:
        raise InvalidInput(f"the market must be one of {', '.join(MARKETS)}, not {market!r}", param="market")
    if not machine.strip():
        raise InvalidInput("a price needs the name of a machine", param="machine")
    if not 0 <= nanodollars_per_hour < 2**63:
        raise InvalidInput("a price must be zero or more nano-dollars per hour", param="nanodollars_per_hour")
    values = {"machine": machine, "market": market, "amount": nanodollars_per_hour, "source": source}
    row = connection.execute(_ADD, values | {"valid_from": valid_from}).one_or_none()
    if row is None:
        raise Conflict(
            f"there is already a price for {machine} ({market}) from {valid_from}; prices are never rewritten"
        )
    return Price(*row)


def list_prices(connection: Connection, *, history: bool = False) -> list[Price]:
    """Returns the prices in force, or with `history` every entry, by machine, market and date."""
    return [Price(*row) for row in connection.execute(_ALL if history else _ALL_IN_FORCE)]
