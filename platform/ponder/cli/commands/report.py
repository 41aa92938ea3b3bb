"""The commands `ponder report …`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import click

from ponder.cli.amount import Unit
from ponder.cli.api import connect
from ponder.cli.console import Column, format_option, print_csv, print_json, print_rows
from ponder.domain.dimension import KNOWN, read_dimensions
from ponder.domain.money import dollars
from ponder.errors import InvalidInput

_Command = TypeVar("_Command", bound=Callable[..., Any])
_LATENCIES = {
    "queued_s": "queued",
    "first_token_s": "first token",
    "first_visible_token_s": "first visible",
    "end_to_end_s": "end to end",
    "token_s": "a token",
}
_TOKENS = {"prompt_tokens": "prompt", "thinking_tokens": "thought", "answer_tokens": "answer"}
_RATES = {
    "validation_failure_rate": "wrong",
    "retry_rate": "retried",
    "restart_rate": "restarted",
    "error_rate": "errors",
    "timeout_rate": "timed out",
    "truncation_rate": "truncated",
    "cache_hit_rate": "cached",
}


@click.group()
def report() -> None:
    """Report where money and time went, and what came of it."""


def _selecting(default_by: str) -> Callable[[_Command], _Command]:
    """Adds the options that every report has. Their values arrive in `query`, as the API takes them."""
    options = [
        click.option(
            "--by", default=default_by, show_default=True, metavar="KEY,KEY,…", help=f"Group by any of {KNOWN}."
        ),
        click.option("--batch", "batch_id", multiple=True, metavar="BATCH", help="Only this batch; repeatable."),
        click.option("--tenant", metavar="TENANT", help="With an operator's key: another tenant's id, or all."),
        click.option("--since", metavar="TIME", help="Only from this ISO date or time on, UTC by default."),
        click.option("--until", metavar="TIME", help="Only before this ISO date or time."),
        format_option("table", "json", "csv"),
    ]

    def decorate(command: _Command) -> _Command:
        for option in reversed(options):
            command = option(command)
        return command

    return decorate


@report.command()
@_selecting("strategy")
@click.option(
    "--compare",
    nargs=2,
    metavar="A B",
    help="Compare the cost per success of two sets of jobs, each KEY=VALUE,… or a batch's id.",
)
def cost(form: str, compare: tuple[str, str] | None, **query: Any) -> None:
    """Report accuracy, tokens and cost per task, and the cost per successful task: everything spent, divided by the
    tasks that passed.

    `direct` is the engine time that the jobs caused. `loaded` adds their share of idle, loading and lost time. `/task`
    divides that by all settled jobs, and `/success`, the cost per successful task, by those that passed; `from` and
    `to` are the ends of its 95 % interval. Operators also see the overhead that no job bears, for hours in which a
    worker served no job.
    """
    if compare:
        _compare(form, compare, query)
        return
    keys = _keys(query)
    if not keys:
        raise InvalidInput(f"--by names nothing; it takes any of {KNOWN}")
    with connect() as client:
        answer = client.report("cost", **query)
    rows = answer["data"]
    unit = Unit.of(row["cost_per_job"] for row in rows)
    is_told = any(row["oracle"] for row in rows)
    if not _print(form, rows, keys, _cost_columns(rows, unit, is_told=is_told)):
        return
    _explain_judges(rows)
    if is_told:
        click.echo("oracle: jobs whose search may have consulted the reference", err=True)
    if rows:
        click.echo(f"money in {unit.name}; loaded: including a share of idle, loading and lost time", err=True)
    if unassigned := answer["unassigned_nanodollars"]:
        click.echo(
            f"not charged to any job: {dollars(unassigned)}, for hours in which a worker served no job", err=True
        )


@report.command()
@_selecting("strategy")
def waste(form: str, **query: Any) -> None:
    """Report what every dollar was spent on: `chosen` ended in an answer, everything else is waste.

    The kinds of a group add up to what was booked, exactly.
    """
    with connect() as client:
        rows = client.report("waste", **query)["data"]
    _print(
        form,
        rows,
        [*_keys(query), "kind"],
        [
            Column("dollars", lambda row: dollars(row["nanodollars"]), is_number=True),
            Column("share", lambda row: f"{row['share']:.1%}", is_number=True),
        ],
    )


@report.command()
@_selecting("strategy")
def latency(form: str, **query: Any) -> None:
    """Report the seconds that settled jobs took, from submission on: p50 / p95 / p99.

    `queued`: until a worker took it. `first visible`: until the first token after the thought. `a token`: from the
    first token to the end, by generated token.
    """
    with connect() as client:
        rows = client.report("latency", **query)["data"]
    columns = [_spread(title, name, _seconds) for name, title in _LATENCIES.items()]
    _print(form, rows, _keys(query), [_count("jobs"), *columns])


@report.command()
@_selecting("strategy")
def quality(form: str, **query: Any) -> None:
    """Report verdicts, rates and tokens a job (p50 / p95 / p99) of jobs that have ended.

    `wrong`: of the judged answers. `retried`: jobs whose verifier asked for another try. `restarted`: jobs that another
    worker continued. `cached`: prompt tokens found in the cache.
    """
    with connect() as client:
        rows = client.report("quality", **query)["data"]
    is_table = _print(
        form,
        rows,
        _keys(query),
        [
            *(_count(name) for name in ("jobs", "passed")),
            *_judge_columns(rows),
            *(_count(name) for name in ("failed", "unverified")),
            *(_rate(title, name) for name, title in _RATES.items()),
            *(_spread(title, name, lambda value: f"{value:,.0f}") for name, title in _TOKENS.items()),
        ],
    )
    if is_table:
        _explain_judges(rows)


@report.command()
@click.option("--by", default="day", show_default=True, metavar="KEY,KEY,…", help="Group by any of day, tenant, key.")
@click.option("--tenant", metavar="TENANT", help="With an operator's key: another tenant's id, or all.")
@click.option("--since", metavar="TIME", help="Only from this ISO date on.")
@click.option("--until", metavar="TIME", help="Only before this ISO date.")
@format_option("table", "json", "csv")
def spending(form: str, **query: Any) -> None:
    """Report direct spending, generated tokens and settled jobs by day, tenant and key, however many jobs there are."""
    with connect() as client:
        rows = client.report("spending", **query)["data"]
    columns = [_count(name) for name in ("completed", "failed", "generated_tokens")]
    direct = Column("direct", lambda row: dollars(row["direct_nanodollars"]), is_number=True)
    _print(form, rows, _keys(query), [*columns, direct])


@report.command("what-if")
@_selecting("strategy")
@click.option("--machine", metavar="MACHINE", help="This machine of the price book did the work.")
@click.option("--market", type=click.Choice(["on_demand", "spot"]), help="On this market.")
@click.option("--price", "dollars_per_hour", metavar="DOLLARS", help="At this price an hour, instead of the book's.")
@click.option("--speed", metavar="FACTOR", help="The machine is so many times as fast, or `measured`.")
@click.option(
    "--billing", "billed_by", type=click.Choice(["second", "minute", "hour"]), help="Lifetimes round up to this."
)
@click.option("--minimum-s", type=click.IntRange(min=0), metavar="SECONDS", help="Each lifetime is billed at least so.")
@click.option("--input", "input_dollars", metavar="DOLLARS", help="By the token: dollars a million of the prompt.")
@click.option("--output", "output_dollars", metavar="DOLLARS", help="By the token: dollars a million generated.")
@click.option(
    "--cached", "cached_dollars", metavar="DOLLARS", help="By the token: dollars a million of a cached prompt."
)
def what_if(form: str, **query: Any) -> None:
    """Report what the same work would have cost at other prices: on another machine or market, billed otherwise, or by
    the token. Costs are loaded.
    """
    with connect() as client:
        rows = client.report("what-if", **query)["data"]
    unit = Unit.of(row["nanodollars"] for row in rows)
    per_success = Unit.of(row["cost_per_successful_task"] for row in rows)
    is_shown = _print(
        form,
        rows,
        _keys(query),
        [
            _count("settled"),
            _count("passed"),
            *([_BY_JUDGE] if _has_judges(rows) else []),
            _money("cost", "nanodollars", unit),
            _money("would be", "other_nanodollars", unit),
            Column("ratio", lambda row: "–" if row["ratio"] is None else f"{row['ratio']:.3g}", is_number=True),
            _money("/success", "cost_per_successful_task", per_success),
            _money("would be", "other_cost_per_successful_task", per_success),
        ],
    )
    if is_shown and rows:
        click.echo(f"money in {unit.name}, a success in {per_success.name}", err=True)


def _compare(form: str, sides: tuple[str, str], query: Mapping[str, Any]) -> None:
    with connect() as client:
        answer = client.report("cost/comparison", a=sides[0], b=sides[1], **{**query, "by": None})
    if form == "json":
        print_json(answer)
        return
    rows = [{"jobs of": side, **answer[name]} for side, name in zip(sides, ("a", "b"), strict=True)]
    _print(form, rows, ["jobs of"], _cost_columns(rows, Unit.of(row["cost_per_job"] for row in rows), is_told=False))
    if form == "table":
        _explain_judges(rows)
    click.echo(_verdict(answer), err=True)


def _verdict(answer: Mapping[str, Any]) -> str:
    if answer["ratio"] is None:
        return "the costs per success cannot be compared: one side has too few jobs or no success"
    said = "may be chance" if answer["may_be_chance"] else "is hardly chance"
    return (
        f"a success of A costs {answer['ratio']:.3g} times that of B "
        f"({answer['confidence']:.0%} interval {answer['ratio_low']:.3g} to {answer['ratio_high']:.3g}); "
        f"the difference {said} (p = {answer['p_value']:.2g}); {_paired(answer)}"
    )


def _paired(answer: Mapping[str, Any]) -> str:
    if answer["paired_by"] is None:
        return "not paired, because no two problems are in both"
    key = {"prompt": "prompt", "custom_id": "custom id"}[answer["paired_by"]]
    return f"paired by {key}: {answer['paired_problems']:,} problems are in both"


def _keys(query: Mapping[str, Any]) -> list[str]:
    return list(read_dimensions(query["by"], "--by"))


def _print(form: str, rows: Sequence[Mapping[str, Any]], keys: Sequence[str], columns: Sequence[Column]) -> bool:
    """Prints rows in the wanted form. Returns whether that was a table, which a legend may follow."""
    if form == "json":
        print_json(rows)
    elif form == "csv":
        print_csv(rows, list(rows[0]) if rows else keys)
    else:
        print_rows(rows, [*(Column(key, _text(key)) for key in keys), *columns], empty="nothing is settled yet")
    return form == "table"


def _has_judges(rows: Sequence[Mapping[str, Any]]) -> bool:
    return any(row["by_judge"] for row in rows)


def _judge_columns(rows: Sequence[Mapping[str, Any]]) -> list[Column]:
    """Returns what keeps judged successes apart from checked ones, where some job is judged."""
    return [_BY_JUDGE, Column("agreement", _agreement, is_number=True)] if _has_judges(rows) else []


def _agreement(row: Mapping[str, Any]) -> str:
    return f"{row['agreement']:.1%} of {row['compared']:,}" if row["compared"] else "–"


def _explain_judges(rows: Sequence[Mapping[str, Any]]) -> None:
    if _has_judges(rows):
        click.echo(
            "by judge: passed because a model said so; agreement: where its verdict and a comparison with the "
            "reference are both known, how often they are the same",
            err=True,
        )


def _cost_columns(rows: Sequence[Mapping[str, Any]], unit: Unit, *, is_told: bool) -> list[Column]:
    oracle = Column("oracle", lambda row: f"{row['oracle']:,}", is_number=True)
    return [
        *(_count(name) for name in ("jobs", "settled", "passed")),
        *_judge_columns(rows),
        _rate("accuracy", "accuracy"),
        Column("tokens/task", _tokens, is_number=True),
        _money("direct", "direct_nanodollars", unit),
        _money("loaded", "loaded_nanodollars", unit),
        _money("/task", "cost_per_job", unit),
        _money("/success", "cost_per_successful_task", unit),
        _money("from", "cost_per_successful_task_low", unit),
        _money("to", "cost_per_successful_task_high", unit),
        *([oracle] if is_told else []),
    ]


def _count(name: str) -> Column:
    return Column(name, lambda row: f"{row[name]:,}", is_number=True)


_BY_JUDGE = Column("by judge", lambda row: f"{row['passed_by_judge']:,}", is_number=True)


def _rate(title: str, name: str) -> Column:
    return Column(title, lambda row: "–" if row[name] is None else f"{row[name]:.1%}", is_number=True)


def _money(title: str, name: str, unit: Unit) -> Column:
    return Column(title, lambda row: unit.written(row[name]), is_number=True)


def _spread(title: str, name: str, written: Callable[[float], str]) -> Column:
    def value(row: Mapping[str, Any]) -> str:
        values = [row[f"{name}_{percentile}"] for percentile in ("p50", "p95", "p99")]
        return "–" if None in values else " / ".join(written(one) for one in values)

    return Column(title, value, is_number=True)


def _seconds(value: float) -> str:
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"


def _tokens(row: Mapping[str, Any]) -> str:
    return "–" if row["tokens_per_job"] is None else f"{row['tokens_per_job']:,.0f}"


def _text(key: str) -> Callable[[Mapping[str, Any]], str]:
    def value(row: Mapping[str, Any]) -> str:
        return "–" if row.get(key) is None else str(row[key])

    return value
