"""Prints data to stdout in the requested format, and everything else to stderr."""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal, TypeVar

import click
from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment
from rich.table import Table
from rich.text import Text

from ponder.cli.terminal import CONTROL, below, harmless

_PIPE_WIDTH = 120

_Command = TypeVar("_Command", bound=Callable[..., Any])


@dataclass(frozen=True, slots=True)
class Column:
    """One column of a table. `value` makes its cell from a row."""

    title: str
    value: Callable[[Mapping[str, Any]], str | Text]
    is_number: bool = False
    may_fold: bool = False


def out() -> Console:
    """Returns a console on stdout. In a pipe it has no colours and never cuts lines to a width."""
    is_terminal = sys.stdout.isatty()
    return _HarmlessConsole(
        file=below(sys.stdout),
        highlight=False,
        markup=False,
        emoji=False,
        soft_wrap=not is_terminal,
        width=None if is_terminal else _PIPE_WIDTH,
    )


def err() -> Console:
    return _HarmlessConsole(file=below(sys.stderr), highlight=False, markup=False, emoji=False)


class _HarmlessConsole(Console):
    """A console that writes its own escape sequences and no others."""

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        for segment in super().render(renderable, options):
            yield segment if segment.control else segment._replace(text=harmless(segment.text))


def format_option(*formats: str) -> Callable[[_Command], _Command]:
    return click.option(
        "--format", "form", type=click.Choice(formats), default=formats[0], show_default=True, help="Output format."
    )


def print_json(document: Any) -> None:
    """Prints a document exactly. Control characters are escaped, as JSON allows for any character."""
    written = json.dumps(document, ensure_ascii=False, indent=2)
    click.echo(CONTROL.sub(lambda found: f"\\u{ord(found[0]):04x}", written))


def print_rows(rows: Sequence[Mapping[str, Any]], columns: Sequence[Column], *, empty: str = "nothing yet") -> None:
    """Prints a table. In a pipe its cells are separated by tabs, without a frame, for `cut` and `awk`."""
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
    """Formats a point in time (Unix seconds or ISO) in this machine's time zone, to the second."""
    if seconds is None:
        return "–"
    when = datetime.fromisoformat(seconds) if isinstance(seconds, str) else datetime.fromtimestamp(seconds)
    return f"{when.astimezone():%Y-%m-%d %H:%M:%S}"


def duration(seconds: float) -> str:
    """Formats a duration: `42 s`, `3 min 05 s`, `2 h 10 min`."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
