"""The command `ponder fleet plan`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any

import click

from ponder.cli.amount import Dollars
from ponder.cli.api import connect
from ponder.cli.console import Column, duration, out, print_json, print_rows
from ponder.domain.money import NANODOLLARS, dollars


@click.command()
@click.option("--model", help="Only this model.")
@click.option(
    "--min", "least", type=click.IntRange(0), default=0, show_default=True, help="The fewest workers of a model."
)
@click.option("--max", "most", type=click.IntRange(0), help="The most workers of a model.")
@click.option(
    "--max-dollars-per-hour",
    type=Dollars(),
    help="The most that the workers of a model may cost in an hour.",
)
@click.option("--json", "is_json", is_flag=True, help="Print the plans as JSON, with the situations they rest on.")
def plan(model: str | None, least: int, most: int | None, max_dollars_per_hour: int | None, is_json: bool) -> None:
    """Show which workers of each model are wanted now, why, and what the alternatives would cost.

    The plan weighs the waiting work and its deadlines against prices, measured throughput, loading time and the
    interruptions of spot machines. It starts and stops nothing. The bounds hold for each model by itself. Needs an
    operator's key.
    """
    if most is not None and most < least:
        raise click.UsageError(f"--max {most} is less than --min {least}")
    dollars_per_hour = None if max_dollars_per_hour is None else f"{Decimal(max_dollars_per_hour) / NANODOLLARS:f}"
    query = {"model": model, "min": least, "max": most, "max_dollars_per_hour": dollars_per_hour}
    with connect() as client:
        plans = client.fleet_plans(**{name: value for name, value in query.items() if value is not None})
    if is_json:
        print_json(plans)
        return
    for planned in plans:
        _print(planned)
    if not plans:
        click.echo("no model has work or workers", err=True)


def _print(planned: Mapping[str, Any]) -> None:
    console = out()
    tokens = sum(load["tokens"] for load in planned["situation"]["loads"])
    console.print(f"{planned['model']} ({planned['fingerprint'] or 'unknown weights'}): {tokens:,} tokens wait")
    for reason in planned["reasons"]:
        console.print(f"  {reason}")
    if planned["wanted"]:
        print_rows(
            planned["wanted"],
            [
                Column("machine", lambda row: row["machine"]),
                Column("market", lambda row: row["market"]),
                Column("workers", lambda row: f"{row['num_workers']:,}", is_number=True),
                Column("why", lambda row: row["reason"], may_fold=True),
            ],
        )
    print_rows(
        planned["alternatives"],
        [
            Column("alternative", lambda row: row["name"]),
            Column("workers", lambda row: _workers(row["workers"]), may_fold=True),
            Column("until done", lambda row: dollars(row["nanodollars"]), is_number=True),
            Column("done in", lambda row: _done(row["finished_in_s"]), is_number=True),
            Column("late tokens", lambda row: f"{row['late_tokens']:,}", is_number=True),
        ],
    )
    console.print()


def _workers(workers: Sequence[Mapping[str, Any]]) -> str:
    return ", ".join(f"{one['num_workers']} {one['machine']} ({one['market']})" for one in workers) or "–"


def _done(seconds: float | None) -> str:
    return "never" if seconds is None else duration(seconds)
