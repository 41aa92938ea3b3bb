"""The page of how long jobs took and how good they were, at a glance and over time."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Annotated, Literal

from fastapi import APIRouter, Query, Request
from markupsafe import Markup
from starlette.responses import Response

from ponder.api.routes.reports import cost, latency, quality
from ponder.api.services import Ponder
from ponder.console.pages.reports.report_view import SHOWN, Choices, Filtered, csv_answer
from ponder.console.plot import Axis, Series, line_plot
from ponder.console.rendering import render
from ponder.console.session import SignedIn
from ponder.domain.money import dollars
from ponder.domain.storable import JsonObject
from ponder.errors import InvalidInput

router = APIRouter()

_DIMENSIONS = ("strategy", "model", "level", "worker_model", "machine", "market")
_By = Annotated[Literal["strategy", "model", "level", "worker_model", "machine", "market"], Query()]
_Each = Annotated[Literal["day", "hour"] | None, Query()]
_MOST_POINTS = 500
_FEW_DAYS = 2
"""So few days are drawn by the hour, unless somebody asks for days."""


@router.get("/quality")
def quality_page(
    request: Request,
    ponder: Ponder,
    visitor: SignedIn,
    chosen: Filtered,
    *,
    by: _By = "strategy",
    each: _Each = None,
) -> Response:
    """Shows the page at once. Its parts read every job that matches, and are asked for afterwards."""
    problem = None
    try:
        chosen.check(ponder, visitor)
    except InvalidInput as error:
        problem = str(error)
    return render(
        request,
        "quality.html",
        visitor,
        status=400 if problem else 200,
        problem=problem,
        filter=chosen,
        choices=Choices.of(ponder, visitor),
        dimensions=_DIMENSIONS,
        by=by,
        each=each,
    )


@router.get("/quality/summary")
def summary_part(request: Request, ponder: Ponder, visitor: SignedIn, chosen: Filtered) -> Response:
    selection = chosen.select(visitor)
    times, rates = latency(ponder, selection)["data"], quality(ponder, selection)["data"]
    costs = cost(ponder, visitor.viewed, selection)["data"]
    return render(
        request,
        "parts/quality_summary.html",
        visitor,
        times=times[0] if times else None,
        rates=rates[0] if rates else None,
        costs=costs[0] if costs else None,
    )


@router.get("/quality/tables")
def tables_part(
    request: Request, ponder: Ponder, visitor: SignedIn, chosen: Filtered, by: _By = "strategy"
) -> Response:
    """Shows times and rates by one dimension."""
    selection = chosen.select(visitor, by)
    return render(
        request,
        "parts/quality_tables.html",
        visitor,
        filter=chosen,
        by=by,
        times=latency(ponder, selection)["data"],
        rates=quality(ponder, selection)["data"],
        shown=SHOWN,
    )


@router.get("/quality/time")
def time_part(request: Request, ponder: Ponder, visitor: SignedIn, chosen: Filtered, each: _Each = None) -> Response:
    rates = quality(ponder, chosen.select(visitor, each or "day"))["data"]
    if each is None:
        each = "hour" if 0 < len(rates) <= _FEW_DAYS else "day"
        rates = rates if each == "day" else quality(ponder, chosen.select(visitor, each))["data"]
    rates, selection = rates[-_MOST_POINTS:], chosen.select(visitor, each)
    plots = [*_latencies(latency(ponder, selection)["data"][-_MOST_POINTS:], each), *_rates(rates, each)]
    costs = cost(ponder, visitor.viewed, selection)["data"][-_MOST_POINTS:]
    names = {"cost_per_job": "a completed workflow", "cost_per_successful_task": "a success"}
    plots.append(_plot("Cost", costs, each, names, Axis("dollars", dollars)))
    return render(request, "parts/quality_time.html", visitor, plots=plots if rates else [])


@router.get("/quality/files/{name}.csv")
def quality_file(
    name: Literal["latency", "quality"], ponder: Ponder, visitor: SignedIn, chosen: Filtered, by: _By = "strategy"
) -> Response:
    wanted = latency if name == "latency" else quality
    return csv_answer(name, wanted(ponder, chosen.select(visitor, by))["data"])


def _latencies(rows: Sequence[JsonObject], each: str) -> Iterable[Markup]:
    seconds = Axis("time", _seconds, is_duration=True)
    yield _plot("End to end", rows, each, {"end_to_end_s_p50": "p50", "end_to_end_s_p95": "p95"}, seconds)
    names = {
        "first_token_s_p50": "first token, p50",
        "first_token_s_p95": "first token, p95",
        "first_visible_token_s_p50": "first visible, p50",
        "first_visible_token_s_p95": "first visible, p95",
    }
    yield _plot("Time to the first token", rows, each, names, seconds)


def _rates(rows: Sequence[JsonObject], each: str) -> Iterable[Markup]:
    share = Axis("share", lambda value: f"{value:.0%}")
    names = {"validation_failure_rate": "validation failures", "retry_rate": "retries", "error_rate": "errors"}
    yield _plot("Failures and retries", rows, each, names, share)
    yield _plot("Cache hit rate", rows, each, {"cache_hit_rate": "prompt tokens in the cache"}, share)
    tokens = {
        "prompt_tokens_p50": "input, p50",
        "answer_tokens_p50": "answer, p50",
        "thinking_tokens_p50": "thinking, p50",
    }
    yield _plot("Tokens a job", rows, each, tokens, Axis("tokens", lambda value: f"{value:,.0f}"))


def _plot(title: str, rows: Sequence[JsonObject], each: str, names: dict[str, str], y: Axis) -> Markup:
    """Draws a line for each of the named fields that has a value at all."""
    series = [
        Series(name, points, f"series-{number}")
        for number, (field, name) in enumerate(names.items(), 1)
        if (points := [(_unix(row[each]), row[field]) for row in rows if row[field] is not None])
    ]
    step_s = 86_400 if each == "day" else 3_600
    x = Axis(f"{each} (UTC)", lambda unix: _written(unix, each), is_time=True, step_s=step_s)
    return line_plot(title, series, x, y)


def _seconds(value: float) -> str:
    """Writes a time with one unit, which an axis has room for."""
    if value < 120:
        return f"{value:.3g} s"
    return f"{value / 60:.3g} min" if value < 7_200 else f"{value / 3_600:.3g} h"


def _unix(moment: str) -> float:
    """Reads a day or hour as reports write it: `2026-11-30` or `2026-11-30T15Z`."""
    return datetime.fromisoformat(moment.removesuffix("Z")).replace(tzinfo=UTC).timestamp()


def _written(unix: float, each: str) -> str:
    return datetime.fromtimestamp(unix, UTC).strftime("%Y-%m-%d" if each == "day" else "%Y-%m-%d %H:00")
