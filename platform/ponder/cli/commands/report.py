"""The command `ponder report cost`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import click

from ponder.cli.amount import Unit
from ponder.cli.api import connect
from ponder.cli.console import Column, format_option, print_csv, print_json, print_rows
from ponder.domain.money import dollars
from ponder.errors import InvalidInput

KEYS = ("strategy", "level", "model", "batch", "market", "machine", "tenant")


@click.group()
def report() -> None:
    """Report costs."""


@report.command()
@click.option(
    "--by", default="strategy", show_default=True, metavar="KEY,KEY,…", help=f"Group by any of {', '.join(KEYS)}."
)
@click.option("--batch", "batch_ids", multiple=True, metavar="BATCH", help="Only this batch; repeatable.")
@click.option("--tenant", metavar="TENANT", help="With an operator's key: another tenant's id, or all.")
@format_option("table", "json", "csv")
def cost(by: str, batch_ids: tuple[str, ...], tenant: str | None, form: str) -> None:
    """Report accuracy, tokens and cost per task, and the cost per successful task: everything spent, divided by the
    tasks that passed.

    `direct` is the engine time that the jobs caused. `loaded` adds their share of idle, loading and lost time. `/task`
    divides that by all settled jobs, and `/success`, the cost per successful task, by those that passed. Operators also
    see the overhead that no job bears, of hours in which a worker served nobody.
    """
    keys = [key.strip() for key in by.split(",") if key.strip()]
    unknown = [key for key in keys if key not in KEYS]
    if unknown or not keys:
        raise InvalidInput(f"--by {by}: {', '.join(unknown) or 'nothing'} is not one of {', '.join(KEYS)}")
    with connect() as client:
        answer = client.cost_report(keys, batch_ids, tenant)
    rows = answer["data"]
    if form == "json":
        print_json(rows)
    elif form == "csv":
        print_csv(rows, list(rows[0]) if rows else keys)
    else:
        unit = Unit.of(row["cost_per_job"] for row in rows)
        is_told = any(row["oracle"] for row in rows)
        print_rows(rows, _columns(keys, unit, is_told=is_told), empty="nothing is settled yet")
        if is_told:
            click.echo("oracle: jobs whose search may have been told what the reference says", err=True)
        if rows:
            click.echo(f"money in {unit.name}; loaded: with a share of idle, loading and lost time", err=True)
        if unassigned := answer["unassigned_nanodollars"]:
            click.echo(f"borne by no job: {dollars(unassigned)}, of hours in which a worker served nobody", err=True)


def _columns(keys: list[str], unit: Unit, *, is_told: bool) -> list[Column]:
    oracle = Column("oracle", lambda row: f"{row['oracle']:,}", is_number=True)
    return [
        *(Column(key, _text(key)) for key in keys),
        Column("jobs", lambda row: f"{row['jobs']:,}", is_number=True),
        Column("settled", lambda row: f"{row['settled']:,}", is_number=True),
        Column("passed", lambda row: f"{row['passed']:,}", is_number=True),
        Column("accuracy", lambda row: "–" if row["accuracy"] is None else f"{row['accuracy']:.1%}", is_number=True),
        Column("tokens/task", _tokens, is_number=True),
        Column("direct", lambda row: unit.written(row["direct_nanodollars"]), is_number=True),
        Column("loaded", lambda row: unit.written(row["loaded_nanodollars"]), is_number=True),
        Column("/task", lambda row: unit.written(row["cost_per_job"]), is_number=True),
        Column("/success", lambda row: unit.written(row["cost_per_successful_task"]), is_number=True),
        *([oracle] if is_told else []),
    ]


def _tokens(row: Mapping[str, Any]) -> str:
    return "–" if row["tokens_per_job"] is None else f"{row['tokens_per_job']:,.0f}"


def _text(key: str) -> Any:
    def value(row: Mapping[str, Any]) -> str:
        return "–" if row.get(key) is None else str(row[key])

    return value
