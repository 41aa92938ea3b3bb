"""The table at the end of the demo: what each strategy solves and costs, by difficulty."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from rich.console import Group
from rich.table import Table
from rich.text import Text

from ponder.cli.amount import Unit
from ponder.domain.interval import wilson
from ponder.wire import Json


@dataclass(frozen=True, slots=True)
class Cell:
    """The figures of one strategy on one level, or on all levels together."""

    num_judged: int
    num_passed: int
    num_tokens: float
    nanodollars: float

    @property
    def accuracy(self) -> float:
        return self.num_passed / self.num_judged if self.num_judged else 0.0

    @property
    def tokens_per_task(self) -> float:
        return self.num_tokens / max(self.num_judged, 1)

    @property
    def cost_per_task(self) -> float:
        return self.nanodollars / max(self.num_judged, 1)

    @property
    def cost_per_success(self) -> float | None:
        return self.nanodollars / self.num_passed if self.num_passed else None

    def __add__(self, other: Cell) -> Cell:
        return Cell(
            self.num_judged + other.num_judged,
            self.num_passed + other.num_passed,
            self.num_tokens + other.num_tokens,
            self.nanodollars + other.nanodollars,
        )


Cells = Mapping[tuple[str, str], Cell]
ALL = "all"
_NAME_WIDTH = 20
_CELL_WIDTH = 10


def cells(rows: Sequence[Json]) -> dict[tuple[str, str], Cell]:
    """The cells by (strategy, level), from the rows of a cost report. The level `all` is the sum of the others."""
    made: dict[tuple[str, str], Cell] = {}
    for row in rows:
        cell = Cell(
            row["settled"], row["passed"], (row["tokens_per_job"] or 0) * row["settled"], row["loaded_nanodollars"]
        )
        for level in (str(row["level"]), ALL):
            key = (row["strategy"], level)
            made[key] = made[key] + cell if key in made else cell
    return made


@dataclass(frozen=True, slots=True)
class _Block:
    """One figure of all strategies. `best` chooses the figure to highlight in a column."""

    title: str
    figure: Callable[[Cell], float | None]
    written: Callable[[float], str]
    best: Callable[[Sequence[float]], float] | None = None
    has_interval: bool = False


def strategy_table(made: Cells, strategies: Sequence[str]) -> Group:
    """The table, with one block a figure. The best strategy of every column is highlighted."""
    unit = Unit.of(cell.cost_per_task for cell in made.values())
    blocks = [
        _Block("Solved, with the 95 % interval", lambda cell: cell.accuracy, lambda share: f"{share:.0%}", max, True),
        _Block("Tokens a task", lambda cell: cell.tokens_per_task, lambda tokens: f"{tokens:,.0f}"),
        _Block(f"Cost a task, in {unit.name}", lambda cell: cell.cost_per_task, unit.written),
        _Block(f"Cost per successful task, in {unit.name}", lambda cell: cell.cost_per_success, unit.written, min),
    ]
    levels = [*sorted({level for _, level in made if level != ALL}), ALL]
    parts: list[Table | Text] = [_table(levels, is_header=True)]
    for block in blocks:
        parts += [Text(block.title, style="bold cyan"), _filled(block, made, strategies, levels), Text("")]
    return Group(*parts[:-1])


def _table(levels: Sequence[str], *, is_header: bool) -> Table:
    """An empty table, whose column widths do not depend on its content."""
    table = Table(box=None, padding=0, show_header=is_header, header_style="bold")
    table.add_column("", width=_NAME_WIDTH)
    for level in levels:
        table.add_column(level if level == ALL else f"level {level}", justify="right", width=_CELL_WIDTH)
    return table


def _filled(block: _Block, made: Cells, strategies: Sequence[str], levels: Sequence[str]) -> Table:
    table = _table(levels, is_header=False)
    columns = [[_figure(block, made.get((strategy, level))) for strategy in strategies] for level in levels]
    tops = [_top(block, column) for column in columns]
    for number, strategy in enumerate(strategies):
        figures = [column[number] for column in columns]
        table.add_row(f"  {strategy}", *(_text(block, *pair) for pair in zip(figures, tops, strict=True)))
        if block.has_interval:
            table.add_row("", *(Text(_interval(made.get((strategy, level))), style="dim") for level in levels))
    return table


def _figure(block: _Block, cell: Cell | None) -> float | None:
    return block.figure(cell) if cell is not None else None


def _top(block: _Block, figures: Sequence[float | None]) -> float | None:
    known = [figure for figure in figures if figure is not None]
    return block.best(known) if block.best and known else None


def _text(block: _Block, figure: float | None, top: float | None) -> Text:
    if figure is None:
        return Text("–")
    return Text(block.written(figure), style="bold green" if figure == top else "")


def _interval(cell: Cell | None) -> str:
    if cell is None:
        return ""
    low, high = wilson(cell.num_passed, cell.num_judged)
    return f"{low * 100:.0f}–{high * 100:.0f} %"
