"""The page of the fleet: workers, what happened to them, the backlog, the plan, and where the money goes."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from markupsafe import Markup
from starlette.responses import Response

from ponder.api.routes.fleet.decisions import get_log
from ponder.api.routes.fleet.plans import get_plan
from ponder.api.routes.fleet.workers import get_load, list_workers
from ponder.api.services import Ponder, Services
from ponder.console.figures import duration, short
from ponder.console.pages.reports.spending_parts import KIND_STYLES, words
from ponder.console.plot import Axis, Bar, Series, Span, bar_plot, line_plot, span_plot
from ponder.console.rendering import render
from ponder.console.session import SignedIn
from ponder.domain.money import dollars
from ponder.domain.storable import JsonObject
from ponder.ledger.reporting import Selection, waste_report

router = APIRouter()

_MOST_WORKERS = 200
_MOST_SPANS = 40
_LOG_ENTRIES = 50
_NUM_STEPS = 60
_HOURS = (1, 6, 24)
_LOST = "its lease expired"
_NOTICES = ("notice", "recommendation")


@router.get("/fleet")
def fleet_page(
    request: Request, ponder: Ponder, visitor: SignedIn, hours: Annotated[int, Query(ge=1, le=168)] = 1
) -> Response:
    """Shows the last hours of the fleet. Only an operator sees it, because it serves all tenants."""
    if not visitor.own.is_operator:
        return render(request, "fleet_closed.html", visitor)
    now = time.time()
    since = now - hours * 3_600
    step_s = max(1, hours * 3_600 // _NUM_STEPS)
    workers = list_workers(ponder, visitor.own, since=since, limit=_MOST_WORKERS)
    over = now // step_s * step_s  # the step after it is not over, and would seem to have less load
    load = get_load(ponder, visitor.own, since=over - hours * 3_600, until=over, step_s=step_s)["data"]
    return render(
        request,
        "fleet.html",
        visitor,
        hours=hours,
        choices=_HOURS,
        alive=[worker for worker in workers["data"] if worker["state"] != "ended"],
        gone=[worker for worker in workers["data"] if worker["state"] == "ended"],
        has_more=workers["has_more"],
        ends=Counter(map(end_of, workers["data"])),
        plans=get_plan(ponder, visitor.own)["data"],
        log=get_log(ponder, visitor.own, limit=_LOG_ENTRIES)["data"],
        time_line=_time_line(workers["data"], since, now),
        load_plots=_load_plots(load),
        bill=_bill(ponder, since),
        end_of=end_of,
        backlog_plot=_backlog_plot,
    )


def end_of(worker: JsonObject) -> str:
    """Returns how a worker ended: lost | notice | stopped, or nothing while it lives."""
    reason = worker["end_reason"]
    if worker["state"] != "ended" or reason is None:
        return ""
    if reason.startswith(_LOST):
        return "lost"
    return "notice" if any(word in reason for word in _NOTICES) else "stopped"


def _time_line(workers: Sequence[JsonObject], since: float, now: float) -> Markup:
    styles = {
        "on_demand": Series("on-demand", (), "series-1"),
        "spot": Series("spot", (), "series-3"),
        "lost": Series("✕ lost", (), "series-bad"),
        "notice": Series("▲ told to go by its cloud", (), "series-2"),
    }
    marks = {"lost": "✕", "notice": "▲"}
    spans = []
    for worker in sorted(workers, key=lambda one: one["started_at"])[-_MOST_SPANS:]:
        end = end_of(worker)
        style = styles["lost" if end == "lost" else "notice" if end == "notice" else worker["market"]].style
        until = worker["ended_at"] or now
        ran = duration(until - worker["started_at"])
        title = f"{worker['machine']}, {worker['market']}: ran {ran}"
        title += f", ended {_clock(until)}: {worker['end_reason']}" if worker["ended_at"] else ", still here"
        spans.append(Span(worker["worker"], worker["started_at"], until, style, title, marks.get(end, "")))
    return span_plot("Workers, notices and losses (UTC)", spans, since, now, list(styles.values()))


def _load_plots(load: Sequence[Mapping[str, Any]]) -> list[Markup]:
    plots: tuple[tuple[str, str, str, Callable[[float], str]], ...] = (
        ("kv_usage", "KV cache in use", "share", lambda value: f"{value:.0%}"),
        ("generated_tokens_per_s", "Generated tokens", "tokens/s", short),
        ("num_running", "Running sequences", "sequences", short),
        ("num_waiting", "Waiting sequences", "sequences", short),
    )
    models = sorted({row["model"] for row in load})
    x = Axis("time (UTC)", _clock, is_time=True)
    return [
        line_plot(
            title,
            [
                Series(
                    model,
                    [(row["at"], float(row[name])) for row in load if row["model"] == model],
                    f"series-{number % 6 + 1}",
                )
                for number, model in enumerate(models)
            ],
            x,
            Axis(unit, write),
        )
        for name, title, unit, write in plots
    ]


def _backlog_plot(planned: JsonObject) -> Markup:
    """Draws the waiting tokens of a model by when they are due."""
    loads = sorted(planned["situation"]["loads"], key=lambda load: load["due_in_s"])
    styles = {"interactive": "series-2", "batch": "series-1"}
    bars = [
        Bar(f"due in {duration(load['due_in_s'])}", [(load["lane"], load["tokens"], styles[load["lane"]])])
        for load in loads
    ]
    return bar_plot(f"Backlog of {planned['model']} by deadline", bars, Axis("tokens", short))


def _bill(ponder: Services, since: float) -> Markup:
    """Draws what the fleet's time was spent on, for all tenants."""
    selection = Selection(by=(), tenant_id=None, batch_ids=None, since=datetime.fromtimestamp(since, UTC), until=None)
    with ponder.engine.connect() as connection:
        rows = waste_report(connection, selection)
    bars = [Bar(words(row.kind), [(words(row.kind), row.nanodollars, KIND_STYLES[row.kind])]) for row in rows]
    return bar_plot("Cost of the fleet by use", bars, Axis("dollars", dollars))


def _clock(unix: float) -> str:
    return datetime.fromtimestamp(unix, UTC).strftime("%Y-%m-%d %H:%M:%S")
