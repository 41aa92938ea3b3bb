"""The commands `ponder price …`, for the price book."""

from __future__ import annotations

import csv
import re
from collections.abc import Callable, Mapping
from decimal import ROUND_UP, Decimal, InvalidOperation
from pathlib import Path
from typing import Any, TypeVar

import click

from ponder.cli.api import connect
from ponder.cli.console import Column, format_option, moment, print_json, print_rows
from ponder.domain.money import dollars, nanodollars

_Command = TypeVar("_Command", bound=Callable[..., Any])
_CSV_COLUMNS = ("Cloud", "GPU Type", "GPUs", "On-demand", "Spot", "Name")


def _terms(command: _Command) -> _Command:
    """Adds the options on how the provider bills."""
    for option in (
        click.option("--currency", default="USD", show_default=True, help="A label; amounts are never converted."),
        click.option("--region", help="Where the machine stands."),
        click.option("--minimum-s", type=int, default=0, metavar="SECONDS", help="A life is billed at least so long."),
        click.option(
            "--billed-by",
            type=click.Choice(["second", "minute", "hour"]),
            default="second",
            show_default=True,
            help="What a life is rounded up to.",
        ),
    ):
        command = option(command)
    return command


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
            Column("an hour", _amount, is_number=True),
            Column("billed by", _billing),
            Column("region", lambda row: row["region"] or "–"),
            Column("since", lambda row: moment(row["valid_from"])),
            Column("source", lambda row: row["source"], may_fold=True),
        ],
    )


@price.command("set")
@click.argument("machine")
@click.argument("market", type=click.Choice(["on_demand", "spot"]))
@click.argument("dollars_per_hour", metavar="DOLLARS")
@click.option("--source", required=True, help="The source of the figure: a link, an invoice.")
@_terms
def set_price(machine: str, market: str, dollars_per_hour: str, source: str, **terms: Any) -> None:
    """Set the hourly price of MACHINE from now on. Needs an operator's key."""
    try:
        amount = nanodollars(Decimal(dollars_per_hour))
    except (InvalidOperation, ValueError) as error:
        raise click.UsageError(
            f"{dollars_per_hour} is not an amount of dollars with at most nine decimal places"
        ) from error
    with connect() as client:
        client.set_price(machine, market, f"{Decimal(dollars_per_hour):f}", source, **terms)
    click.echo(f"{machine} ({market}) costs {dollars(amount)} an hour from now on", err=True)


@price.command("import")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--source", required=True, help="The source of the figures: a link, a date.")
@click.option("--cloud", metavar="CLOUD", help="Only this cloud's rows.")
@_terms
def import_prices(file: Path, source: str, cloud: str | None, **terms: Any) -> None:
    """Set the prices of a CSV file with the columns Cloud, GPU Type, GPUs, On-demand, Spot and Name.

    A worker uses one GPU, so that a machine's price is divided by its GPUs. It is called CLOUD-NAME, or CLOUD-TYPE-GPUS
    where it has no name, in small letters. Nothing is set if a row cannot be read. Needs an operator's key.
    """
    prices = _read(file, cloud)
    if not prices:
        raise click.UsageError(f"{file}: no row has a price" + (f" of {cloud}" if cloud else ""))
    with connect() as client:
        for (machine, market), dollars_per_hour in prices.items():
            client.set_price(machine, market, dollars_per_hour, source, **terms)
    click.echo(f"{len(prices)} prices of {len({machine for machine, _ in prices})} machines are set", err=True)


def _read(file: Path, cloud: str | None) -> dict[tuple[str, str], str]:
    """Returns dollars an hour of one GPU by machine and market. Raises UsageError with the line."""
    prices: dict[tuple[str, str], str] = {}
    with file.open(newline="", encoding="utf-8-sig") as stream:
        rows = csv.DictReader(stream)
        if missing := [name for name in _CSV_COLUMNS if name not in (rows.fieldnames or ())]:
            raise click.UsageError(f"{file}: line 1: there is no column {missing[0]}")
        for row in rows:
            if cloud is not None and (row["Cloud"] or "").lower() != cloud.lower():
                continue
            for market, column in (("on_demand", "On-demand"), ("spot", "Spot")):
                if written := (row[column] or "").strip():
                    price = _per_gpu(written, row["GPUs"], f"{file}: line {rows.line_num}: {column}")
                    prices.setdefault((_machine(row), market), price)
    return prices


def _machine(row: Mapping[str, str]) -> str:
    name = (row["Name"] or "").strip() or f"{row['GPU Type']}-{row['GPUs']}"
    return re.sub(r"[^a-z0-9._]+", "-", f"{row['Cloud']}-{name}".lower()).strip("-")[:100]


def _per_gpu(written: str, num_gpus: str, place: str) -> str:
    """Returns the price of one GPU, rounded up to a nano-dollar."""
    try:
        amount, num = Decimal(written.replace(",", "").removeprefix("$")), Decimal(num_gpus)
        if not amount.is_finite() or amount < 0 or num < 1:
            raise ValueError
        return f"{(amount / num).quantize(Decimal('1e-9'), ROUND_UP):f}"
    except (InvalidOperation, ValueError) as error:
        raise click.UsageError(f"{place}: {written!r} for {num_gpus!r} GPUs is not a price") from error


def _billing(row: Mapping[str, Any]) -> str:
    return str(row["billed_by"]) + (f", {row['minimum_s']} s at least" if row["minimum_s"] else "")


def _amount(row: Mapping[str, Any]) -> str:
    amount = dollars(row["nanodollars_per_hour"])
    return amount if row["currency"] == "USD" else f"{amount.removeprefix('$')} {row['currency']}"
