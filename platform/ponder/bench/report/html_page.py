"""The page of a run: self-contained HTML with tables and plots, no script and nothing from elsewhere."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from html import escape

from ponder.bench.bench_run import BenchRun, CellFigures
from ponder.bench.figures.interval_estimate import Estimate
from ponder.bench.figures.throughput import Point
from ponder.bench.figures.user_times import Spread
from ponder.bench.grid import CellKey, short_labels
from ponder.bench.report.svg_plot import Dot, Series, plot
from ponder.bench.summary_table import (
    cell_columns,
    cell_rows,
    difference_rows,
    judge_columns,
    percent,
    unit_of,
    verdict_rows,
    written,
)
from ponder.cli.console import duration

_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; color: #1c2126; background: #fff; max-width: 1080px; margin: 2em auto;
       padding: 0 1em }
h1 { font-size: 1.6em } h2 { font-size: 1.2em; margin-top: 2em; border-bottom: 1px solid #d5dae0 }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: 13px; width: 100% }
table { display: block; overflow-x: auto } td + td { white-space: nowrap }
th, td { padding: 4px 8px; text-align: right; border-bottom: 1px solid #e6e9ed; vertical-align: top }
th:first-child, td:first-child { text-align: left; min-width: 15em } th { background: #f5f7f9 }
figure { margin: 1em 0; display: inline-block; width: 49%; min-width: 420px; vertical-align: top }
figcaption { color: #59636e; font-size: 13px } svg { width: 100%; font: 11px system-ui, sans-serif; fill: #3a424a }
.axis { stroke: #59636e } .grid { stroke: #e6e9ed } p.note { color: #59636e; max-width: 75ch }
@media (prefers-color-scheme: dark) { body { color: #dde3e9; background: #15191d } th { background: #1f252b }
  th, td { border-color: #2c343c } h2 { border-color: #39424b } svg { fill: #b6c0ca } .grid { stroke: #2c343c } }
"""
_NOTES = """Times are Postgres's. A job is submitted with its batch, so its times include the reading of the batch and
the wait for a worker. Settling is part of the worker's tick, every two seconds, so E2E is no finer than that.
TTFT and TTFVT: time to the first token, and to the first visible one, which is not part of a thought; E2E: end to end.
Stragglers: the share of a cell's time that was left when 90 % of its jobs were done. KV: the share of the generator's
pages of keys and values that were held, sampled every two seconds. Direct cost is the engine time that jobs caused;
loaded cost has its share of loading and idling. Intervals hold the truth with a probability of 95 %. They
tell which differences another draw of problems may explain; what else ran on the machine is in no interval, so repeat a
run whose times matter."""


def as_html(run: BenchRun) -> str:
    """Returns the page. Every text in it that a user wrote is escaped."""
    began = datetime.fromtimestamp(run.began_at, UTC)
    took = duration(run.ended_at - run.began_at)
    unit = unit_of(run)
    columns = cell_columns(run, unit)
    rows = [{column.title: str(column.value(row)) for column in columns} for row in cell_rows(run)]
    sections = [
        f"<p>{escape(run.suite.description)}</p>" if run.suite.description else "",
        f"<p>{began:%Y-%m-%d %H:%M} UTC, {took}, ponder {escape(run.ponder)}; times in seconds, "
        f"cost in {unit.name}.</p>",
        _table(rows),
        *(f"<p>{escape(f'{name} was not measured: {reason}')}</p>" for name, reason in run.skipped.items()),
        _section("Does it keep its accuracy?", _table(verdict_rows(run)) if run.differences else ""),
        *(_section(f"B: {one.b.label}. A: {one.a.label}", _table(difference_rows(one))) for one in run.differences),
        _section("Accuracy", _table(_accuracy_rows(run)) + _accuracy_plots(run)),
        _section("Service", _table(_service_rows(run)) + _service_plots(run)),
        _section("Users' times", _table(_user_rows(run)) + _user_plots(run)),
        f'<h2>How to read this</h2><p class="note">{escape(_NOTES)}</p>',
    ]
    title = escape(f"ponder bench: {run.suite.name}")
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{title}</title>'
        f'<meta name="viewport" content="width=device-width"><style>{_STYLE}</style></head>'
        f"<body><h1>{title}</h1>\n{''.join(sections)}</body></html>\n"
    )


def _section(title: str, content: str) -> str:
    return f"<h2>{escape(title)}</h2>\n{content}\n" if content else ""


def _table(rows: Sequence[Mapping[str, str]]) -> str:
    if not rows:
        return ""
    head = "".join(f"<th>{escape(name)}</th>" for name in rows[0])
    body = "".join(f"<tr>{''.join(f'<td>{escape(row[name])}</td>' for name in rows[0])}</tr>\n" for row in rows)
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>\n"


def _figure(svg: str, caption: str) -> str:
    return f"<figure>{svg}<figcaption>{escape(caption)}</figcaption></figure>\n" if svg else ""


def _accuracy_rows(run: BenchRun) -> list[Mapping[str, str]]:
    levels = list(dict.fromkeys(one.level for cell in run.cells for one in cell.accuracy.by_level))
    rows: list[Mapping[str, str]] = []
    for cell in run.cells:
        at_level = {one.level: one.pass_1.value for one in cell.accuracy.by_level}
        last = {
            name: (f"{written(list(found.values())[-1].value)} at {list(found)[-1]}" if found else "–")
            for name, found in _by_k(cell).items()
        }
        rows.append(
            {"cell": run.labels[cell.key], "domain": cell.domain}
            | {f"level {level}": written(at_level.get(level), 2) for level in levels}
            | last
            | {name: read(cell) for name, read in judge_columns(run).items()}
            | {"unverified": percent(cell.accuracy.unverified), "graded samples": percent(cell.accuracy.graded)}
        )
    return rows


def _by_k(cell: CellFigures) -> Mapping[str, Mapping[int, Estimate]]:
    return {"pass@k": cell.accuracy.pass_k, "maj@k": cell.accuracy.maj_k, "best@k": cell.accuracy.best_k}


def _accuracy_plots(run: BenchRun) -> str:
    by_k = [
        Series(f"{name} {run.labels[cell.key]}", [Dot(k, *_bounds(one)) for k, one in found.items()])
        for cell in run.cells
        for name, found in _by_k(cell).items()
        if found
    ]
    by_level = [
        Series(
            run.labels[cell.key],
            [Dot(index, *_bounds(one.pass_1)) for index, one in enumerate(cell.accuracy.by_level, 1)],
        )
        for cell in run.cells
        if len(cell.accuracy.by_level) > 1
    ]
    costs = [
        Series(
            run.labels[cell.key], [Dot(cell.bill.direct_per_task / unit_of(run).size, *_bounds(cell.accuracy.pass_1))]
        )
        for cell in run.cells
        if cell.bill.direct_per_task > 0
    ]
    return (
        _figure(plot(list(_budget_curves(run)), x="token budget", y="pass@1", log_x=True, y_top=1), "The budget curve.")
        + _figure(
            plot(costs, x=f"cost of a task, {unit_of(run).name}", y="pass@1", log_x=True, y_top=1),
            "Accuracy over the direct cost of a task.",
        )
        + _figure(plot(by_level, x="level, easiest first", y="pass@1", y_top=1), "Accuracy by level.")
        + _figure(plot(by_k, x="k samples", y="accuracy", log_x=True, y_top=1), "What k samples would get right.")
    )


def _budget_curves(run: BenchRun) -> Iterator[Series]:
    """Yields accuracy over the budget, for whatever has several budgets and is otherwise the same."""
    curves: dict[CellKey, list[Dot]] = {}
    for cell in run.cells:
        if cell.key.budget_tokens is not None:
            key = cell.key.model_copy(update={"budget_tokens": None})
            curves.setdefault(key, []).append(Dot(cell.key.budget_tokens, *_bounds(cell.accuracy.pass_1)))
    labels = short_labels(list(curves))
    for key, dots in curves.items():
        if len(dots) > 1:
            yield Series(labels[key], sorted(dots, key=lambda dot: dot.x))


def _service_rows(run: BenchRun) -> list[Mapping[str, str]]:
    return [
        {
            "cell": run.labels[cell.key],
            "jobs/s": written(cell.service.jobs_per_s),
            "output tokens/s": written(cell.service.output_tokens_per_s),
            "total tokens/s": written(cell.service.total_tokens_per_s),
            "KV mean": percent(cell.service.kv_mean),
            "KV p99": percent(cell.service.kv_p99),
            "KV swing": percent(cell.service.kv_swing),
            "largest fall": percent(cell.service.kv_fall),
            "variation": written(cell.service.kv_variation, 2),
            "running": written(cell.service.running_mean),
            "tokens a step": written(cell.service.batch_fill),
            "preemptions": written(cell.service.preemptions),
            "cache hits": percent(cell.service.cache_hit_rate),
            "samples": str(cell.service.num_samples),
        }
        for cell in run.cells
    ]


def _service_plots(run: BenchRun) -> str:
    def over_time(read: Callable[[Point], float]) -> list[Series]:
        return [
            Series(
                run.labels[cell.key],
                [Dot(cell.began_at - run.began_at + point.at_s, read(point)) for point in cell.points],
                has_marks=False,
            )
            for cell in run.cells
            if len(cell.points) > 1
        ]

    usage = plot(over_time(lambda point: point.kv_usage), x="seconds since the run began", y="pages held, share")
    running = plot(over_time(lambda point: point.num_running), x="seconds since the run began", y="sequences running")
    return _figure(usage, "Keys and values over time.") + _figure(running, "Running sequences over time.")


def _user_rows(run: BenchRun) -> list[Mapping[str, str]]:
    return [
        {
            "cell": run.labels[cell.key],
            "TTFT p50/p95/p99": _spread(cell.user.first_token_s),
            "TTFVT": _spread(cell.user.first_visible_token_s),
            "per output token": _spread(cell.user.token_s),
            "E2E": _spread(cell.user.end_to_end_s),
            "output tokens": _spread(cell.user.output_tokens),
            "stragglers": percent(cell.user.stragglers),
            "level ~ time": written(cell.user.level_and_time, 2),
            "level ~ tokens": written(cell.user.level_and_tokens, 2),
        }
        for cell in run.cells
    ]


def _spread(spread: Spread) -> str:
    return " / ".join(map(written, (spread.p50, spread.p95, spread.p99)))


def _user_plots(run: BenchRun) -> str:
    settled = [
        Series(
            run.labels[cell.key],
            [Dot(after, index / (len(cell.user.ended_by_s) - 1)) for index, after in enumerate(cell.user.ended_by_s)],
            has_marks=False,
        )
        for cell in run.cells
    ]
    tokens = [
        Series(
            run.labels[cell.key],
            [Dot(index, one.output_tokens or 0.0) for index, one in enumerate(cell.user.by_level, 1)],
        )
        for cell in run.cells
        if len(cell.user.by_level) > 1
    ]
    return _figure(
        plot(settled, x="seconds since the start", y="share of jobs done", y_top=1), "Stragglers are the flat end."
    ) + _figure(plot(tokens, x="level, easiest first", y="output tokens, median"), "Length by difficulty.")


def _bounds(estimate: Estimate) -> tuple[float, float | None, float | None]:
    return estimate.value or 0.0, estimate.low, estimate.high
