"""The page of what tasks cost. Its other parts are asked for by the page itself (`spending_parts`, `alternatives`)."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from fastapi import APIRouter, Request
from markupsafe import Markup
from starlette.responses import Response

from ponder.api.routes.prices import get_prices
from ponder.api.routes.reports import cost, waste
from ponder.api.services import Ponder, Services
from ponder.console.pages.reports.report_view import (
    SHOWN,
    STYLES,
    Choices,
    Filtered,
    ReportFilter,
    csv_answer,
    day_rows,
    frontier_plot,
)
from ponder.console.plot import Axis, Point, Ranged, interval_plot
from ponder.console.rendering import render
from ponder.console.session import SignedIn, Visitor
from ponder.domain.money import dollars
from ponder.domain.storable import JsonObject
from ponder.errors import InvalidInput, NotFound

router = APIRouter()

_ASKED = {
    "comparison": ("a", "b"),
    "what-if": (
        *("machine", "market", "dollars_per_hour", "speed", "billed_by", "minimum_s"),
        *("input_dollars", "output_dollars", "cached_dollars"),
    ),
}
"""The parts that show something only if the address asks for it, and by which fields."""


@dataclass(frozen=True, slots=True)
class _Tasks:
    """The rows by strategy and level, and their picture."""

    rows: Sequence[JsonObject]
    num_hidden: int
    plot: Markup


@router.get("/cost")
def cost_page(request: Request, ponder: Ponder, visitor: SignedIn, chosen: Filtered) -> Response:
    """Shows the page at once. Each part that reads all jobs or ledger entries is asked for afterwards."""
    problem = None
    try:
        chosen.check(ponder, visitor)
    except InvalidInput as error:
        problem = str(error)
    is_fast = problem is None and chosen.select(visitor).is_of_cells
    given = defaultdict(str, {name: value.strip() for name, value in request.query_params.items() if value.strip()})
    return render(
        request,
        "cost.html",
        visitor,
        status=400 if problem else 200,
        problem=problem,
        filter=chosen,
        choices=Choices.of(ponder, visitor),
        given=given,
        asked={part: {name: given[name] for name in names if name in given} for part, names in _ASKED.items()},
        machines=sorted({price["machine"] for price in get_prices(ponder, visitor.viewed)["data"]}),
        tasks=_tasks(ponder, visitor, chosen) if is_fast else None,
    )


@router.get("/cost/tasks")
def cost_of_tasks(request: Request, ponder: Ponder, visitor: SignedIn, chosen: Filtered) -> Response:
    tasks = _tasks(ponder, visitor, chosen)
    return render(request, "parts/cost_tasks.html", visitor, filter=chosen, tasks=tasks)


@router.get("/cost/summary")
def summary_of_costs(request: Request, ponder: Ponder, visitor: SignedIn, chosen: Filtered) -> Response:
    """Shows everything together, and the accuracy of each model and strategy over its cost."""
    [total] = cost(ponder, visitor.viewed, chosen.select(visitor))["data"] or [None]
    frontier = _frontier(_cost_by("model,strategy")(ponder, visitor, chosen))
    return render(request, "parts/cost_summary.html", visitor, all=total, frontier=frontier)


@router.get("/cost/files/{name}.csv")
def cost_file(name: str, ponder: Ponder, visitor: SignedIn, chosen: Filtered) -> Response:
    """Answers with a table of the page."""
    if name not in _FILES:
        raise NotFound(f"there is no table {name}", param="name")
    return csv_answer(name, _FILES[name](ponder, visitor, chosen))


def _tasks(ponder: Services, visitor: Visitor, chosen: ReportFilter) -> _Tasks:
    rows = _cost_by("strategy,level")(ponder, visitor, chosen)
    known = [row for row in rows if row["cost_per_successful_task"] is not None]
    styles = _styles(rows)
    ranged = [
        Ranged(
            _name(row, "strategy", "level"),
            row["cost_per_successful_task"],
            row["cost_per_successful_task_low"],
            row["cost_per_successful_task_high"],
            styles[row["strategy"]],
        )
        for row in known[:SHOWN]
    ]
    axis = Axis("dollars a success, with the 95 % interval", dollars)
    plot = interval_plot("Cost per successful task, by strategy and level", ranged, axis)
    return _Tasks(rows[:SHOWN], len(rows) - SHOWN, plot)


def _styles(rows: Sequence[JsonObject]) -> Mapping[str, str]:
    strategies = sorted({row["strategy"] for row in rows})
    return {strategy: STYLES[number % len(STYLES)] for number, strategy in enumerate(strategies)}


def _frontier(rows: Sequence[JsonObject]) -> Markup:
    """Draws the accuracy of each model and strategy over its cost, and a line along those that no other one beats."""
    styles = _styles(rows)
    is_one_model = len({row["model"] for row in rows}) == 1
    points = [
        Point(
            row["strategy"] if is_one_model else _name(row, "model", "strategy"),
            row["cost_per_job"],
            row["accuracy"],
            styles[row["strategy"]],
            y_interval=(row["accuracy_low"], row["accuracy_high"]),
        )
        for row in rows
        if row["accuracy"] is not None and row["cost_per_job"] is not None
    ]
    return frontier_plot(
        "Accuracy over dollars",
        points[:SHOWN],
        Axis("dollars a task", dollars),
        styles,
    )


def _name(row: JsonObject, *names: str) -> str:
    return " · ".join(str(row[name]) for name in names if row[name] is not None)


def _cost_by(by: str) -> Callable[[Services, Visitor, ReportFilter], Sequence[JsonObject]]:
    def read(ponder: Services, visitor: Visitor, chosen: ReportFilter) -> Sequence[JsonObject]:
        rows: Sequence[JsonObject] = cost(ponder, visitor.viewed, chosen.select(visitor, by))["data"]
        return rows

    return read


def _waste(ponder: Services, visitor: Visitor, chosen: ReportFilter) -> Sequence[JsonObject]:
    rows: Sequence[JsonObject] = waste(ponder, chosen.select(visitor, "strategy"))["data"]
    return rows


_FILES = {
    "tasks": _cost_by("model,strategy,level"),
    "spending": day_rows,
    "models": _cost_by("model"),
    "markets": _cost_by("market,machine"),
    "waste": _waste,
}
