"""Printing: data to stdout in the form that was asked for, everything else to stderr."""

from __future__ import annotations

import csv
import json
import re
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal, TypeVar

import click
from rich.console import Console
from rich.table import Table
from rich.text import Text

_PIPE_WIDTH = 120
_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f]")

_Command = TypeVar("_Command", bound=Callable[..., Any])


@dataclass(frozen=True, slots=True)
class Column:
    """One column of a table; `value` makes its cell from a row."""

    title: str
    value: Callable[[Mapping[str, Any]], str | Text]
    is_number: bool = False
    may_fold: bool = False


def out() -> Console:
    """stdout; without colours in a pipe, and never cut to the terminal's width there."""
    is_terminal = sys.stdout.isatty()
    return Console(
        highlight=False,
        markup=False,
        emoji=False,
        soft_wrap=not is_terminal,
        width=None if is_terminal else _PIPE_WIDTH,
    )


def err() -> Console:
    return Console(stderr=True, highlight=False, markup=False, emoji=False)


def harmless(value: Any) -> Any:
    """The same without what a terminal would obey: prompts and answers are anybody's text."""
    if isinstance(value, str):
        return _CONTROL.sub("\ufffd", value)
    if isinstance(value, Mapping):
        return {key: harmless(item) for key, item in value.items()}
    return [harmless(item) for item in value] if isinstance(value, list) else value


def format_option(*formats: str) -> Callable[[_Command], _Command]:
    return click.option(
        "--format", "form", type=click.Choice(formats), default=formats[0], show_default=True, help="How to print it."
    )


def print_json(document: Any) -> None:
    click.echo(json.dumps(document, ensure_ascii=False, indent=2))


def print_rows(rows: Sequence[Mapping[str, Any]], columns: Sequence[Column], *, empty: str = "nothing yet") -> None:
    """A table; in a pipe its cells are separated by tabs, with no frame, for `cut` and `awk`."""
    rows = harmless(list(rows))
    if not sys.stdout.isatty():
        for row in [[column.title for column in columns], *([str(c.value(row)) for c in columns] for row in rows)]:
            click.echo("\t".join(row))
    elif not rows:
        err().print(empty)
    else:
        out().print(table(rows, columns))


def table(rows: Iterable[Mapping[str, Any]], columns: Sequence[Column]) -> Table:
    drawn = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
    for column in columns:
        justify: Literal["right", "left"] = "right" if column.is_number else "left"
        drawn.add_column(column.title, justify=justify, overflow="fold", no_wrap=not column.may_fold)
    for row in rows:
        drawn.add_row(*(column.value(row) for column in columns))
    return drawn


def print_csv(rows: Iterable[Mapping[str, Any]], fields: Sequence[str]) -> None:
    writer = csv.DictWriter(sys.stdout, fieldnames=list(fields), extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)


def moment(seconds: float | str | None) -> str:
    """A point in time (Unix seconds or ISO) on this machine's clock, to the second."""
    if seconds is None:
        return "–"
    when = datetime.fromisoformat(seconds) if isinstance(seconds, str) else datetime.fromtimestamp(seconds)
    return f"{when.astimezone():%Y-%m-%d %H:%M:%S}"


def duration(seconds: float) -> str:
    """`42 s`, `3 min 05 s`, `2 h 10 min`."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
