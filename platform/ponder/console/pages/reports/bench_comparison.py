"""The page that compares two runs of `ponder bench`, cell by cell."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated

from fastapi import APIRouter, Query, Request
from starlette.responses import Response

from ponder.api.routes.measuring.bench_runs import get_run
from ponder.api.routes.reports import compare_costs
from ponder.api.services import Ponder, Services
from ponder.console.pages.reports.bench_document import BenchDocument, Cell, Estimate, read_document
from ponder.console.pages.reports.report_view import SHOWN
from ponder.console.plot import Axis, Ranged, interval_plot
from ponder.console.rendering import render
from ponder.console.session import SignedIn, Visitor
from ponder.domain.storable import JsonObject
from ponder.errors import NotFound
from ponder.ledger.reporting import Selection

router = APIRouter()

_Run = Annotated[str, Query(max_length=100)]
_Number = Annotated[int, Query(ge=0, le=10_000)]


@dataclass(frozen=True, slots=True)
class _Pair:
    """Cells of both runs that differ in nothing but model and workers, and by how much B is more often right."""

    a: Cell
    b: Cell
    a_number: int
    b_number: int
    label: str
    more: Estimate

    @property
    def may_be_chance(self) -> bool:
        return self.more.low is None or self.more.high is None or self.more.low <= 0 <= self.more.high


@router.get("/bench/comparison")
def bench_comparison_page(request: Request, ponder: Ponder, visitor: SignedIn, a: _Run, b: _Run) -> Response:
    runs = [get_run(run_id, ponder, visitor.viewed) for run_id in (a, b)]
    documents = [read_document(run["document"]) for run in runs]
    one, other = documents
    pairs = list(pairs_of(one, other)) if one and other else []
    ranged = [
        Ranged(f"{side}: {pair.label}", found.value, found.low, found.high, style)
        for pair in pairs[: SHOWN // 2]
        for side, cell, style in (("A", pair.a, "series-1"), ("B", pair.b, "series-2"))
        if (found := cell.accuracy.pass_1).value is not None
    ]
    axis = Axis("pass@1, with the 95 % interval", lambda value: f"{value:.0%}")
    return render(
        request,
        "bench_comparison.html",
        visitor,
        runs=runs,
        documents=documents,
        pairs=pairs[:SHOWN],
        num_hidden=len(pairs) - SHOWN,
        picture=interval_plot("Accuracy", ranged, axis),
    )


@router.get("/bench/comparison/cost")
def bench_cost_part(
    request: Request, ponder: Ponder, visitor: SignedIn, *, a: _Run, b: _Run, a_cell: _Number, b_cell: _Number
) -> Response:
    """Compares the cost per success of two cells by the ledger, in pairs of the problems that both answered."""
    one, other = (
        Selection(tenant_id=visitor.viewed.tenant_id, batch_ids=_batches(ponder, visitor, run_id, number))
        for run_id, number in ((a, a_cell), (b, b_cell))
    )
    found: JsonObject | None
    try:
        found = compare_costs(ponder, one, other)
    except NotFound:  # the batches of a run may be of another installation
        found = None
    return render(request, "parts/bench_cost.html", visitor, found=found)


def _batches(ponder: Services, visitor: Visitor, run_id: str, number: int) -> tuple[str, ...]:
    document = read_document(get_run(run_id, ponder, visitor.viewed)["document"])
    if document is None or number >= len(document.cells):
        raise NotFound(f"the run has no cell {number}", param="a_cell")
    return document.cells[number].batch_ids


def pairs_of(a: BenchDocument, b: BenchDocument) -> Iterator[_Pair]:
    """Yields the cells of A, each with the one of B that ran the same task, by preference with the same model."""
    left: dict[tuple[object, ...], dict[str, list[int]]] = {}
    for number in reversed(range(len(b.cells))):
        key = b.cells[number].key
        left.setdefault(key.task, {}).setdefault(key.parts[1], []).append(number)
    for number, (label, cell) in enumerate(zip(a.labels, a.cells, strict=True)):
        same = left.get(cell.key.task)
        if not same:
            continue
        model = cell.key.parts[1]
        if model not in same:
            model = min(same, key=lambda one: same[one][-1])
        other_number = same[model].pop()
        if not same[model]:
            del same[model]
        other = b.cells[other_number]
        yield _Pair(cell, other, number, other_number, label, _difference(cell.accuracy.pass_1, other.accuracy.pass_1))


def _difference(a: Estimate, b: Estimate) -> Estimate:
    """Returns B less A with its interval, from those of both, as if they were independent.

    G. Y. Zou, A. Donner, Construction of confidence limits about effect measures, Statistics in Medicine 27 (2008),
    1693-1702. Cells that answered the same problems are not independent, which makes this interval wider than need be.
    """
    if a.value is None or b.value is None:
        return Estimate()
    value = b.value - a.value
    if a.low is None or a.high is None or b.low is None or b.high is None:
        return Estimate(value=value)
    low = value - math.hypot(b.value - b.low, a.high - a.value)
    high = value + math.hypot(b.high - b.value, a.value - a.low)
    return Estimate(value=value, low=low, high=high)
