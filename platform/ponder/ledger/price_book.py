"""What an hour of a machine costs, by date."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection


@dataclass(frozen=True, slots=True)
class Price:
    machine: str
    market: str
    valid_from: datetime
    nanodollars_per_hour: int
    source: str


def price_at(connection: Connection, machine: str, market: str, at: datetime | None = None) -> Price:
    """The newest entry not after `at` (None: now). Raises UnknownMachine, which names the known ones."""
    raise NotImplementedError


def set_price(
    connection: Connection,
    machine: str,
    market: str,
    nanodollars_per_hour: int,
    *,
    source: str,
    valid_from: datetime | None = None,
) -> Price:
    """Adds a dated entry (None: from now); running incarnations keep their price. Raises InvalidInput, Conflict."""
    raise NotImplementedError


def list_prices(connection: Connection, *, history: bool = False) -> list[Price]:
    """The prices in force, or with `history` every entry, by machine, market and date."""
    raise NotImplementedError
