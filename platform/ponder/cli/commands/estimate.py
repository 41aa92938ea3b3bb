"""The command `ponder estimate`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import click

from ponder.cli.api import connect
from ponder.cli.batch_file import BatchFile
from ponder.cli.console import Column, duration, format_option, print_json, print_rows
from ponder.cli.submission_options import submission_options
from ponder.domain.money import dollars
from ponder.wire import Json

_PATIENCE_S = 30.0
_TOTALS: tuple[tuple[str, str, Callable[[float], str]], ...] = (
    ("prompt tokens", "prompt_tokens", lambda number: f"{number:,.0f}"),
    ("generated tokens", "generated_tokens", lambda number: f"{number:,.0f}"),
    ("reward tokens", "reward_tokens", lambda number: f"{number:,.0f}"),
    ("direct cost", "direct_nanodollars", dollars),
    ("loaded cost", "loaded_nanodollars", dollars),
)


@click.command()
@submission_options
@click.option("--workers", type=click.IntRange(1), metavar="K", help="Also estimate the time with K workers.")
@click.option("--json", "is_json", is_flag=True, help="Print JSON; the same as --format json.")
@format_option("table", "json")
def estimate(file: Path, workers: int | None, form: str, *, is_json: bool, **given: Any) -> None:
    """Estimate what FILE would take, without submitting it: tokens, dollars and time.

    It takes what `ponder run` takes. Every total comes with an interval that holds it nine times in ten, and with what
    it rests on: settled jobs of the same strategy and level, of the same model, or only what is usual for models.
    """
    batch_file = BatchFile.of(file, **given)
    with connect(patience_s=_PATIENCE_S) as client:
        found = batch_file.estimate(client, workers)
    if is_json or form == "json":
        print_json(found)
        return
    print_rows([_row(*total) for total in totals_of(found)], _COLUMNS)
    if found["refused_lines"]:
        click.echo(f"{found['refused_lines']:,} lines would be refused: {found['first_refusal']}", err=True)
    click.echo(f"{found['jobs']:,} jobs; nothing was submitted", err=True)


def totals_of(found: Json) -> Iterator[tuple[str, Json, Callable[[float], str]]]:
    """Yields the totals of an estimate, each with its title and how its numbers are written."""
    for title, name, written in _TOTALS:
        yield title, found[name], written
    for name in ("wall_seconds", "wall_seconds_asked"):
        if (wall := found[name]) is not None:
            number = wall["workers"]
            yield f"time, {number} worker{'s' * (number != 1)}", wall, duration


def _row(title: str, total: Mapping[str, Any], written: Callable[[float], str]) -> Json:
    values = {name: "–" if total[name] is None else written(total[name]) for name in ("estimate", "low", "high")}
    return {"total": title, "rests_on": total["rests_on"], **values}


_COLUMNS = (
    Column("total", lambda row: row["total"]),
    Column("estimate", lambda row: row["estimate"], is_number=True),
    Column("low", lambda row: row["low"], is_number=True),
    Column("high", lambda row: row["high"], is_number=True),
    Column("rests on", lambda row: row["rests_on"], may_fold=True),
)
