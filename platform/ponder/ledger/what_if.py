"""Computes what the same work would have cost at other prices."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any, Literal

from sqlalchemy import Connection, Row, text

from ponder.errors import InvalidInput
from ponder.ledger.cost_report import CostRow, cost_report
from ponder.ledger.price_book import Billing, price_at
from ponder.ledger.reporting import Group, Selection

_Key = tuple[str | None, ...]

_SPENT = """
    WITH spent AS (
        SELECT {columns} model, incarnation_id, machine, market, nanodollars_per_hour,
               sum(loaded_nanodollars) AS loaded_nanodollars
        FROM cost_entries WHERE {condition}
        GROUP BY {groups} model, incarnation_id, machine, market, nanodollars_per_hour
    )
    SELECT spent.*, CAST(extract(epoch FROM billed_until - started_at) * 1000000 AS bigint) AS lifetime_us
    FROM spent JOIN incarnations ON incarnations.id = incarnation_id
"""

_TOKENS = """
    SELECT {columns} CAST(sum(prompt_tokens - cached_tokens) AS bigint) AS input_tokens,
           CAST(sum(cached_tokens) AS bigint) AS cached_tokens, CAST(sum(completion_tokens) AS bigint) AS output_tokens
    FROM reported_jobs WHERE {condition} AND prompt_tokens IS NOT NULL {grouping}
"""

# Of jobs that were computed on one kind of machine.
_SPEEDS = """
    SELECT model, machine, CAST(sum(completion_tokens) AS bigint) AS num_tokens, sum(machine_hours) AS machine_hours
    FROM (
        SELECT job_id, model, min(machine) AS machine,
               sum(CAST(direct_nanodollars AS numeric) / nanodollars_per_hour) AS machine_hours
        FROM cost_entries WHERE {condition} AND kind = 'work' AND nanodollars_per_hour > 0
        GROUP BY job_id, model HAVING count(DISTINCT machine) = 1
    ) AS computed JOIN usage USING (job_id)
    GROUP BY model, machine
"""


@dataclass(frozen=True, slots=True)
class TokenPrices:
    """A price list, in nano-dollars a token."""

    input: Fraction
    output: Fraction
    cached: Fraction


@dataclass(frozen=True, slots=True)
class MachinePrices:
    """Other prices for the same machine time.

    machine, market: take the price in force in the price book, billed as it says; None: those where the work was done.
    nanodollars_per_hour: this price instead of the book's. speed: how many times as fast the machine does the work, or
    "measured". billing: how lifetimes are rounded, instead of what the book says.
    """

    machine: str | None = None
    market: str | None = None
    nanodollars_per_hour: int | None = None
    speed: Fraction | Literal["measured"] = Fraction(1)
    billing: Billing | None = None


@dataclass(frozen=True, slots=True)
class WhatIfRow:
    """One group: its loaded cost as it is and as it would be, and the cost per success of both."""

    group: Group
    num_settled: int
    num_passed: int
    num_by_judge: int
    num_passed_by_judge: int
    nanodollars: int
    other_nanodollars: int

    @property
    def ratio(self) -> float | None:
        return self.other_nanodollars / self.nanodollars if self.nanodollars else None

    @property
    def cost_per_success(self) -> float | None:
        return self.nanodollars / self.num_passed if self.num_passed else None

    @property
    def other_cost_per_success(self) -> float | None:
        return self.other_nanodollars / self.num_passed if self.num_passed else None


def what_if(connection: Connection, selection: Selection, prices: MachinePrices | TokenPrices) -> list[WhatIfRow]:
    """Returns one row per group, in order. Raises InvalidInput, and UnknownMachine for what is not in the price book.

    Work on machines with the price 0 left no entries, so that it costs nothing at any other price either.
    """
    rows = cost_report(connection, selection)
    if isinstance(prices, TokenPrices):
        others = _by_tokens(connection, selection, prices)
    else:
        others = _by_machine(connection, selection, prices)
    return [_row(row, others) for row in rows]


def _row(row: CostRow, others: dict[_Key, Fraction]) -> WhatIfRow:
    other = round(others.get(tuple(row.group.values()), Fraction(0)))
    return WhatIfRow(
        group=row.group,
        num_settled=row.num_settled,
        num_passed=row.num_passed,
        num_by_judge=row.num_by_judge,
        num_passed_by_judge=row.num_passed_by_judge,
        nanodollars=row.loaded_nanodollars,
        other_nanodollars=other,
    )


def _by_tokens(connection: Connection, selection: Selection, prices: TokenPrices) -> dict[_Key, Fraction]:
    statement = _TOKENS.format(columns=selection.columns, condition=selection.condition, grouping=selection.grouping)
    return {
        tuple(selection.group(row).values()): row.input_tokens * prices.input
        + row.cached_tokens * prices.cached
        + row.output_tokens * prices.output
        for row in connection.execute(text(statement), selection.values)
        if row.input_tokens is not None
    }


def _by_machine(connection: Connection, selection: Selection, prices: MachinePrices) -> dict[_Key, Fraction]:
    groups = "".join(f"{name}, " for name in selection.names)
    statement = _SPENT.format(columns=selection.columns, condition=selection.condition, groups=groups)
    spent = connection.execute(text(statement), selection.values).all()
    rates = _Rates(connection, selection, prices)
    others: dict[_Key, Fraction] = defaultdict(Fraction)
    for row in spent:
        others[tuple(selection.group(row).values())] += Fraction(row.loaded_nanodollars) * rates.factor(row)
    return others


class _Rates:
    """By how much the cost of one incarnation's time would change. Asks Postgres for each price and speed once."""

    def __init__(self, connection: Connection, selection: Selection, prices: MachinePrices) -> None:
        self._connection = connection
        self._prices = prices
        self._known: dict[tuple[str, str], tuple[int, Billing]] = {}
        self._speeds = self._measured(selection) if prices.speed == "measured" else {}

    def factor(self, row: Row[Any]) -> Fraction:
        price, billing = self._price(row)
        speed = self._speed(row)
        lifetime_s = Fraction(row.lifetime_us, 1_000_000)
        other_s = lifetime_s / speed
        if (billing := self._prices.billing or billing) is not None:
            other_s = billing.billed_s(other_s)
        return Fraction(price, row.nanodollars_per_hour) * other_s / lifetime_s

    def _price(self, row: Row[Any]) -> tuple[int, Billing | None]:
        prices = self._prices
        if prices.nanodollars_per_hour is not None:
            return prices.nanodollars_per_hour, None
        if prices.machine is None and prices.market is None:
            return row.nanodollars_per_hour, None
        place = prices.machine or row.machine, prices.market or row.market
        if place not in self._known:
            price = price_at(self._connection, *place)
            self._known[place] = price.nanodollars_per_hour, price.billing
        return self._known[place]

    def _speed(self, row: Row[Any]) -> Fraction:
        if self._prices.speed != "measured":
            return Fraction(self._prices.speed)
        machine = self._prices.machine or row.machine
        if machine == row.machine:
            return Fraction(1)
        here, there = self._speeds.get((row.model, row.machine)), self._speeds.get((row.model, machine))
        if not here or not there:
            missing = row.machine if not here else machine
            raise InvalidInput(
                f"the speed of {row.model} on {missing} is not measured: no job was computed there; give a number",
                param="speed",
                code="invalid_value",
            )
        return there / here

    def _measured(self, selection: Selection) -> dict[tuple[str, str], Fraction]:
        """Returns generated tokens an hour by model and machine, over all of the tenant's jobs."""
        scope = replace(selection, by=(), batch_ids=None, since=None, until=None, where={})
        rows = self._connection.execute(text(_SPEEDS.format(condition=scope.condition)), scope.values)
        return {
            (row.model, row.machine): row.num_tokens / Fraction(row.machine_hours) for row in rows if row.machine_hours
        }
