"""`ponder report cost`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import click

from ponder.cli.api import connect
from ponder.cli.console import Column, format_option, print_csv, print_json, print_rows
from ponder.domain.money import dollars
from ponder.errors import InvalidInput

KEYS = ("strategy", "level", "model", "batch", "market", "machine")


@click.group()
def report() -> None:
    """What it cost."""


@report.command()
@click.option("--by", default="strategy", show_default=True, metavar="KEY,KEY,…", help=f"Of {', '.join(KEYS)}.")
@click.option("--batch", "batch_ids", multiple=True, metavar="BATCH", help="Only this batch; repeatable.")
@format_option("table", "json", "csv")
def cost(by: str, batch_ids: tuple[str, ...], form: str) -> None:
    """Accuracy, tokens and money a task, and the cost per successful task: everything spent over the tasks that passed.

    `cost` is direct: the engine time that the jobs caused. `loaded` adds their share of idle, loading and lost time,
    and is what the cost per successful task is made of.
    """
    keys = [key.strip() for key in by.split(",") if key.strip()]
    unknown = [key for key in keys if key not in KEYS]
    if unknown or not keys:
        raise InvalidInput(f"--by {by}: {', '.join(unknown) or 'nothing'} is none of {', '.join(KEYS)}")
    with connect() as client:
        rows = client.cost_report(keys, batch_ids)["data"]
    if form == "json":
        print_json(rows)
    elif form == "csv":
        print_csv(rows, list(rows[0]) if rows else keys)
    else:
        print_rows(rows, columns(keys), empty="nothing is settled yet")


def columns(keys: list[str]) -> list[Column]:
    return [
        *(Column(key, _text(key)) for key in keys),
        Column("jobs", lambda row: f"{row['jobs']:,}", is_number=True),
        Column("settled", lambda row: f"{row['settled']:,}", is_number=True),
        Column("passed", lambda row: f"{row['passed']:,}", is_number=True),
        Column("accuracy", lambda row: percent(row["accuracy"]), is_number=True),
        Column("tokens/task", lambda row: amount(row["tokens_per_job"]), is_number=True),
        Column("cost", lambda row: money(row["direct_nanodollars"]), is_number=True),
        Column("loaded", lambda row: money(row["loaded_nanodollars"]), is_number=True),
        Column("loaded/task", lambda row: money(row["cost_per_job"]), is_number=True),
        Column("cost per success", lambda row: money(row["cost_per_successful_task"]), is_number=True),
    ]


def percent(share: float | None) -> str:
    return "–" if share is None else f"{share:.1%}"


def amount(number: float | None) -> str:
    return "–" if number is None else f"{number:,.0f}"


def money(nanodollars: float | None) -> str:
    return "–" if nanodollars is None else dollars(nanodollars)


def _text(key: str) -> Any:
    def value(row: Mapping[str, Any]) -> str:
        return "–" if row.get(key) is None else str(row[key])

    return value
