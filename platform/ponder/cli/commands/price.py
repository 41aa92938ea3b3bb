"""The commands `ponder price …`, for the price book."""

from __future__ import annotations

from decimal import Decimal, InvalidOperation

import click

from ponder.cli.api import connect
from ponder.cli.console import Column, format_option, moment, print_json, print_rows
from ponder.domain.money import dollars, nanodollars


@click.group()
def price() -> None:
    """The hourly prices of machines. A price never changes: a new one applies to workers that start after it."""


@price.command("list")
@format_option("table", "json")
def list_prices(form: str) -> None:
    """List the prices in force."""
    with connect() as client:
        rows = client.prices()
    if form == "json":
        print_json(rows)
        return
    print_rows(
        rows,
        [
            Column("machine", lambda row: row["machine"]),
            Column("market", lambda row: row["market"]),
            Column("an hour", lambda row: dollars(row["nanodollars_per_hour"]), is_number=True),
            Column("since", lambda row: moment(row["valid_from"])),
            Column("source", lambda row: row["source"], may_fold=True),
        ],
    )


@price.command("set")
@click.argument("machine")
@click.argument("market", type=click.Choice(["on_demand", "spot"]))
@click.argument("dollars_per_hour", metavar="DOLLARS")
@click.option("--source", required=True, help="The source of the figure: a link, an invoice.")
def set_price(machine: str, market: str, dollars_per_hour: str, source: str) -> None:
    """Set the hourly price of MACHINE from now on. Needs an operator's key."""
    try:
        amount = nanodollars(Decimal(dollars_per_hour))
    except (InvalidOperation, ValueError) as error:
        raise click.UsageError(
            f"{dollars_per_hour} is not an amount of dollars with at most nine decimal places"
        ) from error
    with connect() as client:
        client.set_price(machine, market, f"{Decimal(dollars_per_hour):f}", source)
    click.echo(f"{machine} ({market}) costs {dollars(amount)} an hour from now on", err=True)
