"""The command `ponder fleet plan`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any

import click

from ponder.cli.amount import Dollars
from ponder.cli.api import connect
from ponder.cli.console import Column, duration, out, print_json, print_rows
from ponder.domain.money import NANODOLLARS, dollars

_MANY = 6
"""More machines are not named one by one."""


@click.command()
@click.option("--model", help="Only this model.")
@click.option(
    "--min",
    "least",
    type=click.IntRange(0),
    help="The fewest workers of each model.  [default: the autoscaler's, or 0]",
)
@click.option("--max", "most", type=click.IntRange(0), help="The most workers, of all models together.")
@click.option("--max-dollars-per-hour", type=Dollars(), help="The most that all workers may cost together.")
@click.option(
    "--machine",
    "machines",
    multiple=True,
    metavar="MACHINE:MARKET",
    help="A machine that may be started; may be repeated.  [default: the autoscaler's, or any where the model was "
    "timed]",
)
@click.option("--json", "is_json", is_flag=True, help="Print the plans as JSON, with the situations they rest on.")
def plan(
    *,
    model: str | None,
    least: int | None,
    most: int | None,
    max_dollars_per_hour: int | None,
    machines: Sequence[str],
    is_json: bool,
) -> None:
    """Show which workers of each model are wanted now, why, and what the alternatives would cost.

    The plan weighs the waiting work and its deadlines against prices, measured throughput, loading time and the
    interruptions of spot machines. It is the one that the active autoscaler acts on; options that you give go before
    the autoscaler's own. It starts and stops nothing. Needs an operator's key.
    """
    if most is not None and least is not None and most < least:
        raise click.UsageError(f"--max {most} is less than --min {least}")
    dollars_per_hour = None if max_dollars_per_hour is None else f"{Decimal(max_dollars_per_hour) / NANODOLLARS:f}"
    options = {"min": least, "max": most, "max_dollars_per_hour": dollars_per_hour, "machine": list(machines) or None}
    given = {name: value for name, value in options.items() if value is not None}
    with connect() as client:
        answer = client.fleet_plans(**given, **({} if model is None else {"model": model}))
    plans, scope = answer["data"], answer["scope"]
    if is_json:
        print_json(plans)
        return
    click.echo(_heading(scope, is_changed=bool(given)), err=True)
    for planned in plans:
        _print(planned)
    if not plans:
        click.echo("no model has work or workers", err=True)


def _heading(scope: Mapping[str, Any], *, is_changed: bool) -> str:
    if not scope["is_autoscaled"]:
        return "no autoscaler is active: nothing is started or stopped for these plans"
    limits = [f"at least {scope['min']} of each model"] if scope["min"] else []
    if scope["max"] is not None:
        limits.append(f"at most {scope['max']} worker{'s' * (scope['max'] != 1)}")
    if scope["max_nanodollars_per_hour"] is not None:
        limits.append(f"at most {dollars(scope['max_nanodollars_per_hour'])} an hour")
    places = ", ".join(f"{one['machine']} ({one['market']})" for one in scope["machines"][:_MANY])
    more = len(scope["machines"]) - _MANY
    limits.append(f"on {places or 'no machine'}{f' and {more} more' if more > 0 else ''}")
    what = "what the active autoscaler would plan with these options" if is_changed else "the active autoscaler's plan"
    return f"{what}: {', '.join(limits)}"


def _print(planned: Mapping[str, Any]) -> None:
    console = out()
    tokens = sum(load["tokens"] for load in planned["situation"]["loads"])
    weights = planned["fingerprint"] or "unknown weights"
    console.print(f"{planned['model']} ({weights}): {tokens:,} tokens wait, {_live(planned['situation']['running'])}")
    for reason in planned["reasons"]:
        console.print(f"  {reason}")
    if planned["wanted"]:
        print_rows(
            planned["wanted"],
            [
                Column("machine", lambda row: row["machine"]),
                Column("market", lambda row: row["market"]),
                Column("workers", _number, is_number=True),
                Column("why", lambda row: row["reason"], may_fold=True),
            ],
        )
    print_rows(
        planned["alternatives"],
        [
            Column("alternative", lambda row: row["name"]),
            Column("workers", lambda row: _workers(row["workers"]), may_fold=True),
            Column("until done", lambda row: dollars(row["nanodollars"]), is_number=True),
            Column("done in", lambda row: _done(row["finished_in_s"]), is_number=True),
            Column("late tokens", lambda row: f"{row['late_tokens']:,}", is_number=True),
        ],
    )
    console.print()


def _live(running: Sequence[Mapping[str, Any]]) -> str:
    number, loading = (sum(one[name] for one in running) for name in ("num_workers", "num_loading"))
    return f"{number:,} worker{'s run' if number != 1 else ' runs'}" + (f" ({loading:,} loading)" if loading else "")


def _number(wanted: Mapping[str, Any]) -> str:
    number, allowed = wanted["num_workers"], wanted["num_allowed"]
    return f"{number:,}" if allowed >= number else f"{allowed:,} of {number:,}"


def _workers(workers: Sequence[Mapping[str, Any]]) -> str:
    return ", ".join(f"{one['num_workers']} {one['machine']} ({one['market']})" for one in workers) or "–"


def _done(seconds: float | None) -> str:
    return "never" if seconds is None else duration(seconds)
