"""The summary that the demo prints at its end: the table of strategies, one search tree, and what to do next."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console, Group
from rich.table import Table
from rich.text import Text

from ponder.cli import exit_code
from ponder.cli.amount import Unit
from ponder.cli.console import out
from ponder.cli.tree import print_tree
from ponder.client import Client
from ponder.domain.money import dollars
from ponder.ledger.interval import share_interval
from ponder.wire import Json
from ponder_worker.demo.demo_run import DemoRun

_MOST_CANDIDATES = 8
_MOST_NODES = 30
ALL = "all"
_NAME_WIDTH = 20
_CELL_WIDTH = 10


def print_summary(client: Client, run: DemoRun, batches: Mapping[str, Json]) -> int:
    """Prints the summary and returns the exit code."""
    results = run.write_results(client, dict(batches))
    rows = client.cost_report(["strategy", "level"], list(run.batches.values()))["data"]
    job = _instructive_job(client, run)
    console = out()
    _print_table(console, rows, list(run.batches))
    if job is not None:
        _print_tree(console, job)
    _print_next(console, results, job)
    num_failed = sum(batch["request_counts"]["failed"] for batch in batches.values())
    if num_failed:
        console.print(f"\n{num_failed} jobs failed; the results file says why", style="red")
    return exit_code.SOME_JOBS_FAILED if num_failed else exit_code.SETTLED


def _print_table(console: Console, rows: list[Json], strategies: list[str]) -> None:
    made = cells(rows)
    console.print()
    console.print(strategy_table(made, strategies))
    direct = sum(row["direct_nanodollars"] for row in rows)
    loaded = sum(row["loaded_nanodollars"] for row in rows)
    num_tasks = sum(row["settled"] for row in rows)
    console.print(
        f"\nThe bill: {dollars(loaded)} for {num_tasks:,} tasks. {dollars(direct)} of it is engine time that they "
        "caused; the rest, loading and idling, is spread over them above."
    )


def _instructive_job(client: Client, run: DemoRun) -> Json | None:
    """A beam search that solved what one sample had missed, on the highest level possible; or else any beam search."""
    missed = {_problem(row) for row in client.jobs(run.batches["direct"]) if row["verdict"] == "failed"}
    found = [row for row in client.jobs(run.batches["beam_search"]) if row["state"] == "completed"]
    if not found:
        return None

    def interest(row: Json) -> tuple[bool, bool, str]:
        return row["verdict"] == "passed", _problem(row) in missed, str(row["level"])

    most = max(map(interest, found))
    candidates = [row["id"] for row in found if interest(row) == most][:_MOST_CANDIDATES]
    return max(map(client.job, candidates), key=_num_turns)


def _num_turns(job: Json) -> int:
    """The number of distinct steps that the search took back; 0 for a tree that would fill the screen."""
    nodes = (job.get("tree") or {}).get("nodes") or []
    turned_back = {(node["parent"], node.get("text")) for node in nodes if node.get("state") == "pruned"}
    kept = {(node["parent"], node.get("text")) for node in nodes if node.get("state") != "pruned"}
    return len(turned_back - kept) if len(turned_back | kept) <= _MOST_NODES else 0


def _problem(row: Json) -> str:
    """The custom_id without its strategy."""
    return str(row["custom_id"]).partition("/")[2]


def _print_tree(console: Console, job: Json) -> None:
    verdict = "right" if job["verdict"] == "passed" else "wrong"
    console.print(f"\nHow one of them was searched: {job['id']}, {job['strategy']}, level {job['level']}", style="bold")
    print_tree(job)
    console.print(
        f"The answer {job['answer']} is {verdict}; the search cost {dollars(job['cost']['direct_nanodollars'])}."
    )


def _print_next(console: Console, results: Path, job: Json | None) -> None:
    ponder = _command()
    console.print(f"\nResults, one line a job: {results}")
    console.print("\nNext:", style="bold")
    steps = [
        ("up", "start it again, batches included; then"),
        (f"show {job['id']}" if job else "batches", "any job: its attempts, tree and cost"),
        ("report cost --by strategy,level", "the bill, also as --format json or csv"),
        ("run FILE --model demo --prompt FIELD --answer FIELD", "your own problems"),
    ]
    width = max(len(step) for step, _ in steps[:-1])
    for step, why in steps:
        console.print(f"  {ponder} {step:<{width}}  {why}")


def _command() -> str:
    """The command to type for `ponder` in this shell."""
    if shutil.which("ponder"):
        return "ponder"
    program = os.path.relpath(sys.argv[0])
    return program if not program.startswith("..") else sys.argv[0]


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
    low, high = share_interval(cell.num_passed, cell.num_judged)
    return f"{low * 100:.0f}–{high * 100:.0f} %"
