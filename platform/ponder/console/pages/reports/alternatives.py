"""The parts of the page of costs that compare two sets of jobs, and the same work at other prices."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

from fastapi import APIRouter, Query, Request
from starlette.responses import Response

from ponder.api.routes.reports import OtherPrices, cost_comparison, what_if_report
from ponder.api.services import Ponder
from ponder.console.pages.reports.report_view import SHOWN, Filtered, csv_answer
from ponder.console.plot import Axis, Bar, Ranged, bar_plot, interval_plot
from ponder.console.rendering import render
from ponder.console.session import SignedIn
from ponder.domain.money import dollars
from ponder.domain.storable import JsonObject

router = APIRouter()

_Case = tuple[str, str, str]
_CASES: tuple[_Case, ...] = (("now", "nanodollars", "series-1"), ("then", "other_nanodollars", "series-2"))

_Side = Annotated[str, Query(max_length=500)]


@router.get("/cost/comparison")
def comparison_part(
    request: Request, ponder: Ponder, visitor: SignedIn, chosen: Filtered, *, a: _Side, b: _Side
) -> Response:
    """Compares the cost per success of two batches, or of two sets of jobs such as `strategy=direct,level=3`."""
    found = cost_comparison(ponder, chosen.select(visitor), a, b)
    sides = [
        Ranged(
            f"{letter}: {_short(name)}",
            found[side]["cost_per_successful_task"],
            found[side]["cost_per_successful_task_low"],
            found[side]["cost_per_successful_task_high"],
            style,
        )
        for letter, side, name, style in (("A", "a", a, "series-1"), ("B", "b", b, "series-2"))
        if found[side]["cost_per_successful_task"] is not None
    ]
    picture = interval_plot("Cost per successful task", sides, Axis("dollars, with the 95 % interval", dollars))
    return render(request, "parts/cost_comparison.html", visitor, found=found, a=a, b=b, picture=picture)


@router.get("/cost/what-if")
def what_if_part(
    request: Request, ponder: Ponder, visitor: SignedIn, chosen: Filtered, prices: OtherPrices
) -> Response:
    """Shows what the same work would have cost at other prices."""
    rows: Sequence[JsonObject] = what_if_report(ponder, chosen.select(visitor, "strategy"), prices)["data"]
    total = what_if_report(ponder, chosen.select(visitor), prices)["data"]
    bars = [
        Bar(f"{row['strategy']} {name}", [(name, row[field], style)])
        for row in rows[: SHOWN // 2]
        for name, field, style in _CASES
    ]
    picture = bar_plot("The same work", bars, Axis("dollars", dollars))
    return render(
        request,
        "parts/cost_what_if.html",
        visitor,
        rows=rows[:SHOWN],
        total=total[0] if total and total[0]["settled"] else None,
        picture=picture,
        query=request.url.query,
    )


@router.get("/cost/what-if.csv")
def what_if_file(ponder: Ponder, visitor: SignedIn, chosen: Filtered, prices: OtherPrices) -> Response:
    return csv_answer("what-if", what_if_report(ponder, chosen.select(visitor, "strategy"), prices)["data"])


def _short(side: str) -> str:
    """Returns the end of a batch's id, which tells batches apart, and any other text as it is."""
    return f"…{side[-8:]}" if side.startswith("batch_") else side
