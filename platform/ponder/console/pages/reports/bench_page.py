"""The pages of the runs of `ponder bench`: their list, and the report of one."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Annotated

from fastapi import APIRouter, Path, Request
from markupsafe import Markup
from starlette.responses import Response

from ponder.api.page import After
from ponder.api.routes.measuring.bench_runs import get_run, list_runs
from ponder.api.services import Ponder
from ponder.console.figures import duration
from ponder.console.pages.reports.bench_document import BenchDocument, Cell, read_document
from ponder.console.pages.reports.report_view import SHOWN, STYLES, frontier_plot
from ponder.console.plot import Axis, Point, Ranged, Series, interval_plot, line_plot
from ponder.console.rendering import render
from ponder.console.session import SignedIn
from ponder.domain.money import dollars
from ponder.errors import NotFound

router = APIRouter()

_ROWS = 50
_PERCENT = Axis("accuracy", lambda value: f"{value:.0%}")


@router.get("/bench")
def bench_page(request: Request, ponder: Ponder, visitor: SignedIn, after: After = None) -> Response:
    return render(request, "bench.html", visitor, runs=list_runs(ponder, visitor.viewed, _ROWS, after))


@router.get("/bench/runs/{run_id}")
def bench_run_page(request: Request, ponder: Ponder, visitor: SignedIn, run_id: str) -> Response:
    """Shows the figures of a run's cells and how they differ. How a cell went over time is asked for when wanted."""
    run = get_run(run_id, ponder, visitor.viewed)
    document = read_document(run["document"])
    others = [one for one in list_runs(ponder, visitor.viewed, _ROWS)["data"] if one["id"] != run_id]
    return render(
        request,
        "bench_run.html",
        visitor,
        run=run,
        others=others,
        document=document,
        shown=SHOWN,
        plots=list(_plots(document)) if document else [],
    )


@router.get("/bench/runs/{run_id}/document.json")
def bench_run_file(ponder: Ponder, visitor: SignedIn, run_id: str) -> Response:
    """Answers with the document as the bench sent it."""
    document = get_run(run_id, ponder, visitor.viewed)["document"]
    headers = {"Content-Disposition": f'attachment; filename="{run_id}.json"'}
    return Response(json.dumps(document, indent=1), media_type="application/json", headers=headers)


@router.get("/bench/runs/{run_id}/cells/{number}")
def bench_cell_part(
    request: Request, ponder: Ponder, visitor: SignedIn, run_id: str, number: Annotated[int, Path(ge=0, le=10_000)]
) -> Response:
    """Shows how a cell went over time."""
    document = read_document(get_run(run_id, ponder, visitor.viewed)["document"])
    if document is None or number >= len(document.cells):
        raise NotFound(f"the run has no cell {number}", param="number")
    return render(request, "parts/bench_cell.html", visitor, plots=list(_over_time(document.cells[number])))


def _plots(document: BenchDocument) -> Iterable[Markup]:
    cells = list(zip(document.labels, document.cells, strict=True))[:SHOWN]
    strategies = list(dict.fromkeys(cell.key.strategy for _, cell in cells))
    styles = {name: STYLES[number % len(STYLES)] for number, name in enumerate(strategies)}
    accuracies = [_ranged(label, cell, styles) for label, cell in cells if cell.accuracy.pass_1.value is not None]
    yield interval_plot("Accuracy of each cell", accuracies, Axis("pass@1, with the 95 % interval", _PERCENT.write))
    yield _frontier(cells, styles)
    successes = [
        Ranged(label, cost.value, cost.low, cost.high, styles[cell.key.strategy])
        for label, cell in cells
        if (cost := cell.bill.direct_per_success).value is not None
    ]
    yield interval_plot("Direct cost of a success", successes, Axis("dollars, with the 95 % interval", dollars))
    yield _by_level(cells)


def _ranged(label: str, cell: Cell, styles: dict[str, str]) -> Ranged:
    found = cell.accuracy.pass_1
    return Ranged(label, found.value or 0.0, found.low, found.high, styles[cell.key.strategy])


def _frontier(cells: Sequence[tuple[str, Cell]], styles: dict[str, str]) -> Markup:
    points = [
        Point(
            label,
            cell.bill.direct_per_task,
            accuracy.value,
            styles[cell.key.strategy],
            y_interval=None if accuracy.low is None or accuracy.high is None else (accuracy.low, accuracy.high),
        )
        for label, cell in cells
        if (accuracy := cell.accuracy.pass_1).value is not None and cell.bill.direct_per_task is not None
    ]
    return frontier_plot("Accuracy over the direct cost of a task", points, Axis("dollars a task", dollars), styles)


def _by_level(cells: Sequence[tuple[str, Cell]]) -> Markup:
    levels = list(dict.fromkeys(one.level for _, cell in cells for one in cell.accuracy.by_level))
    series = [
        Series(
            label,
            [(levels.index(one.level) + 1, one.pass_1.value or 0.0) for one in cell.accuracy.by_level],
            STYLES[number % len(STYLES)],
        )
        for number, (label, cell) in enumerate(cells[: len(STYLES)])
        if len(cell.accuracy.by_level) > 1
    ]
    names = {float(number): level for number, level in enumerate(levels, 1)}
    return line_plot("Accuracy by level", series, Axis("level", lambda value: names.get(value, "")), _PERCENT)


def _over_time(cell: Cell) -> Iterable[Markup]:
    seconds = Axis("since the cell began", duration, is_duration=True)
    points = cell.points[:300]

    def drawn(title: str, y: Axis, **fields: str) -> Markup:
        series = [
            Series(name.replace("_", " "), [(one.at_s, getattr(one, field)) for one in points], STYLES[number])
            for number, (name, field) in enumerate(fields.items())
        ]
        return line_plot(title, series if points else [], seconds, y)

    yield drawn("Generated tokens a second", Axis("tokens/s", lambda value: f"{value:,.0f}"), tokens="tokens_per_s")
    yield drawn("Pages of keys and values in use", Axis("share", lambda value: f"{value:.0%}"), used="kv_usage")
    yield drawn("Sequences", Axis("sequences"), running="num_running", waiting="num_waiting")
