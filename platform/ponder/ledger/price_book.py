"""The price book: the price of a machine's hour, by date."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from fractions import Fraction

from sqlalchemy import Connection, text

from ponder.errors import Conflict, InvalidInput, UnknownMachine

MARKETS = ("on_demand", "spot")
GRANULES_S = {"second": 1, "minute": 60, "hour": 3600}
_LONGEST_MINIMUM_S = 366 * 86_400


@dataclass(frozen=True, slots=True)
class Billing:
    """How a provider rounds: up to whole units of `billed_by`, and to `minimum_s` at least. Raises InvalidInput.

    The ledger divides the time that a worker lived; rounding is a question for `what_if`.
    """

    billed_by: str = "second"
    minimum_s: int = 0

    def __post_init__(self) -> None:
        if self.billed_by not in GRANULES_S:
            raise InvalidInput(f"billed_by must be one of {', '.join(GRANULES_S)}", param="billed_by")
        if not 0 <= self.minimum_s <= _LONGEST_MINIMUM_S:
            raise InvalidInput(f"minimum_s must be from 0 to {_LONGEST_MINIMUM_S} seconds", param="minimum_s")

    def billed_s(self, seconds: Fraction) -> Fraction:
        granule_s = GRANULES_S[self.billed_by]
        return Fraction(max(-(-seconds // granule_s) * granule_s, self.minimum_s))


@dataclass(frozen=True, slots=True)
class Price:
    machine: str
    market: str
    valid_from: datetime
    nanodollars_per_hour: int
    source: str
    billed_by: str = "second"
    minimum_s: int = 0
    region: str | None = None
    currency: str = "USD"
    """A label for people: amounts are never converted."""

    @property
    def billing(self) -> Billing:
        return Billing(self.billed_by, self.minimum_s)


_BY_SECOND = Billing()
_COLUMNS = "machine, market, valid_from, nanodollars_per_hour, source, billed_by, minimum_s, region, currency"

_IN_FORCE = text(f"""
    SELECT {_COLUMNS} FROM price_book
    WHERE machine = :machine AND market = :market
      AND valid_from <= coalesce(CAST(:at AS timestamptz), clock_timestamp())
    ORDER BY valid_from DESC LIMIT 1
""")

_ADD = text(f"""
    INSERT INTO price_book ({_COLUMNS})
    VALUES (:machine, :market, coalesce(CAST(:valid_from AS timestamptz), clock_timestamp()), :amount, :source,
            :billed_by, :minimum_s, CAST(:region AS text), :currency)
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
    billing: Billing = _BY_SECOND,
    region: str | None = None,
    currency: str = "USD",
) -> Price:
    """Adds a dated entry (None means now). Running incarnations keep their price. Raises InvalidInput or Conflict."""
    if market not in MARKETS:
        raise InvalidInput(f"the market must be one of {', '.join(MARKETS)}, not {market!r}", param="market")
    if not machine.strip():
        raise InvalidInput("a price needs the name of a machine", param="machine")
    if not 0 <= nanodollars_per_hour < 2**63:
        raise InvalidInput("a price must be zero or more nano-dollars per hour", param="nanodollars_per_hour")
    values = {"machine": machine, "market": market, "amount": nanodollars_per_hour, "source": source}
    values |= {"billed_by": billing.billed_by, "minimum_s": billing.minimum_s, "region": region, "currency": currency}
    row = connection.execute(_ADD, values | {"valid_from": valid_from}).one_or_none()
    if row is None:
        raise Conflict(
            f"there is already a price for {machine} ({market}) from {valid_from}; prices are never rewritten"
        )
    return Price(*row)


def list_prices(connection: Connection, *, history: bool = False) -> list[Price]:
    """Returns the prices in force, or with `history` every entry, by machine, market and date."""
    return [Price(*row) for row in connection.execute(_ALL if history else _ALL_IN_FORCE)]
