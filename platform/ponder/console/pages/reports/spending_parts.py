"""The parts of the page of costs that tell where and when the money was spent."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime

from fastapi import APIRouter, Request
from markupsafe import Markup
from starlette.responses import Response

from ponder.api.routes.reports import cost, waste
from ponder.api.services import Ponder, Services
from ponder.console.pages.reports.report_view import SHOWN, STYLES, Choices, Filtered, ReportFilter, day_rows
from ponder.console.plot import Axis, Bar, Series, bar_plot, line_plot
from ponder.console.rendering import render
from ponder.console.session import SignedIn, Visitor
from ponder.domain.money import dollars
from ponder.domain.storable import JsonObject

router = APIRouter()

_LINES = 5
"""The most tenants with a line of their own."""
_DAY_S = 86_400
_KINDS = {
    "chosen": "generation on the paths of the answers that were returned",
    "pruned": "generation in the same rounds, on other paths",
    "other_rounds": "generation in rounds whose choice a verifier rejected",
    "judged": "what judges generated",
    "failed": "work for jobs that ended with an error",
    "cancelled": "work for jobs that were cancelled or expired",
    "pending": "work for jobs that have not ended",
    "unknown": "work for jobs settled before ponder recorded this",
    "recomputed": "tokens that an earlier attempt had already computed",
    "speculated": "steps that no search asked for after all",
    "duplicate": "work for a job that another worker had settled",
    "idle": "workers without work",
    "loading": "workers that loaded their model",
    "draining": "workers that were about to leave",
    "lost": "from dead workers' last signs of life to the ends of their leases",
}
KIND_STYLES = {
    "chosen": "series-good",
    "pruned": "series-1",
    "other_rounds": "series-4",
    "judged": "series-3",
    "failed": "series-bad",
    "cancelled": "series-6",
    "pending": "series-2",
    "unknown": "series-unknown",
    "recomputed": "series-4",
    "speculated": "series-3",
    "duplicate": "series-6",
    "idle": "series-5",
    "loading": "series-4",
    "draining": "series-3",
    "lost": "series-bad",
}
"""The colour of each kind, the same on all pages."""
_MONEY = Axis("dollars", dollars)


@router.get("/cost/spending")
def spending_part(request: Request, ponder: Ponder, visitor: SignedIn, chosen: Filtered) -> Response:
    """Shows spending by day, by model, and where several tenants are shown by tenant."""
    selection = chosen.select(visitor)
    names = {one["id"]: one["name"] for one in Choices.of(ponder, visitor).tenants}
    plots = [_by_day(ponder, visitor, chosen, names)]
    for dimension in ("model", "tenant") if selection.tenant_id is None else ("model",):
        plots.append(_bars(ponder, visitor, chosen, dimension, names))
    return _part(request, visitor, chosen, files=("spending", "models"), plots=plots)


@router.get("/cost/markets")
def market_part(request: Request, ponder: Ponder, visitor: SignedIn, chosen: Filtered) -> Response:
    plots = [_bars(ponder, visitor, chosen, dimension, {}) for dimension in ("market", "machine")]
    return _part(request, visitor, chosen, files=("markets",), plots=plots)


@router.get("/cost/waste")
def waste_part(request: Request, ponder: Ponder, visitor: SignedIn, chosen: Filtered) -> Response:
    """Shows what the money was spent on, by kind and by strategy."""
    rows: Sequence[JsonObject] = waste(ponder, chosen.select(visitor, "strategy"))["data"]
    sums = {kind: sum(row["nanodollars"] for row in rows if row["kind"] == kind) for kind in _KINDS}
    sums = {kind: amount for kind, amount in sums.items() if amount}
    by_strategy: dict[str, list[tuple[str, float, str]]] = {}
    for row in rows:
        part = (words(row["kind"]), row["nanodollars"], KIND_STYLES[row["kind"]])
        by_strategy.setdefault(row["strategy"] or "no job", []).append(part)
    kinds = [Bar(words(kind), [(words(kind), amount, KIND_STYLES[kind])]) for kind, amount in sums.items()]
    strategies = [Bar(strategy, parts) for strategy, parts in list(by_strategy.items())[:SHOWN]]
    plots = [bar_plot("Spending by kind", kinds, _MONEY), bar_plot("By kind and strategy", strategies, _MONEY)]
    whole = sum(sums.values())
    notes = [(words(kind), amount, amount / whole, _KINDS[kind]) for kind, amount in sums.items()]
    return _part(request, visitor, chosen, files=("waste",), plots=plots if notes else [], notes=notes)


def _part(
    request: Request,
    visitor: Visitor,
    chosen: ReportFilter,
    *,
    files: Sequence[str],
    plots: Sequence[Markup],
    notes: Sequence[tuple[str, int, float, str]] = (),
) -> Response:
    return render(request, "parts/cost_plots.html", visitor, filter=chosen, files=files, plots=plots, notes=notes)


def _by_day(ponder: Services, visitor: Visitor, chosen: ReportFilter, names: Mapping[str, str]) -> Markup:
    """Draws a line for everything, or for each of several tenants. Days without spending count as 0."""
    rows = day_rows(ponder, visitor, chosen)
    days = [_unix(row["day"]) for row in rows]
    sums: dict[str, dict[int, int]] = {}
    for row, day in zip(rows, days, strict=True):
        of_tenant = sums.setdefault(row["tenant"], {})
        of_tenant[day] = of_tenant.get(day, 0) + row["direct_nanodollars"]
    largest = sorted(sums, key=lambda tenant: -sum(sums[tenant].values()))
    series = [
        Series(
            names.get(tenant, tenant) if len(largest) > 1 else "spent",
            [(day, sums[tenant].get(day, 0)) for day in range(min(days), max(days) + 1, _DAY_S)],
            STYLES[number],
        )
        for number, tenant in enumerate(largest[:_LINES])
    ]
    title = "Direct spending by day" + (f", of the {_LINES} tenants that spent most" if len(largest) > _LINES else "")
    axis = Axis("day (UTC)", _day, is_time=True, step_s=_DAY_S)
    return line_plot(title, series, axis, _MONEY, is_filled=len(series) == 1)


def _bars(ponder: Services, visitor: Visitor, chosen: ReportFilter, dimension: str, names: Mapping[str, str]) -> Markup:
    rows = cost(ponder, visitor.viewed, chosen.select(visitor, dimension))["data"]
    spent = sorted((row for row in rows if row["loaded_nanodollars"]), key=lambda row: -row["loaded_nanodollars"])
    bars = [
        Bar(
            names.get(row[dimension], row[dimension]) or "unknown",
            [
                ("direct", row["direct_nanodollars"], "series-1"),
                ("share of overhead", row["loaded_nanodollars"] - row["direct_nanodollars"], "series-5"),
            ],
        )
        for row in spent[:SHOWN]
    ]
    return bar_plot(f"Spending by {dimension}", bars, _MONEY)


def _unix(day: str) -> int:
    return int(datetime.fromisoformat(day).replace(tzinfo=UTC).timestamp())


def _day(unix: float) -> str:
    return datetime.fromtimestamp(unix, UTC).strftime("%Y-%m-%d")


def words(kind: str) -> str:
    return kind.replace("_", " ")
