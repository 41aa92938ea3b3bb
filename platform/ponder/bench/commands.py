"""The commands `ponder bench run`, `list`, `show`, `delete` and `compare`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import fields
from pathlib import Path

import click
from pydantic import ValidationError

from ponder.bench.bench_run import BenchRun, CellFigures, records_of
from ponder.bench.execution import Execution, Tell
from ponder.bench.paired import Difference, difference_of
from ponder.bench.report.html_page import as_html
from ponder.bench.suite import WorkerSetting, read_suite, shipped
from ponder.bench.summary_table import (
    as_csv,
    cell_columns,
    cell_rows,
    columns_of,
    difference_rows,
    unit_of,
    verdict_rows,
)
from ponder.cli.api import connect
from ponder.cli.commands.stack import client_of_stack, plan
from ponder.cli.console import Column, duration, err, format_option, moment, print_json, print_rows
from ponder.client import Client
from ponder.embedded.home import Home
from ponder.embedded.plan import Plan
from ponder.embedded.worker import WorkerOptions
from ponder.errors import Conflict, InvalidInput, PonderError
from ponder.settings import Settings
from ponder.wire import Json

_PATIENCE_S = 60.0
_NOT_KEPT = "bench_not_kept"
"""The name of a run that is only in its files."""


@click.group()
def bench() -> None:
    """Measure models, strategies and serving settings: accuracy, service, users' times and money."""


@bench.command()
@click.argument("suite")
@click.option("--data", type=click.Path(path_type=Path), help="The folder, or the file, of the suite's problems.")
@click.option("--model", "models", multiple=True, help="Measure this model instead of the suite's; may be given again.")
@click.option("--problems", type=click.IntRange(1), help="The most problems of each data set.")
@click.option("-o", "--output", type=click.Path(path_type=Path), help="The folder for the reports.  [default: RUN]")
@format_option("table", "json")
def run(
    *, suite: str, data: Path | None, models: tuple[str, ...], problems: int | None, output: Path | None, form: str
) -> None:
    """Run SUITE and report what was measured.

    SUITE is a TOML file or the name of a shipped suite (`ponder bench list --suites`). It uses the API of
    PONDER_BASE_URL, or what `ponder up` started, or else starts everything on this machine and stops it at the end.
    The run is kept in Postgres, and as JSON, CSV and an HTML page in the output folder.
    """
    found, folder = read_suite(suite)
    if models:
        found = found.model_copy(update={"models": models})
    with _progress() as tell:
        kept, measured = Execution(found, data or folder, _stack, tell, problems).run()
    run_id = kept if isinstance(kept, str) else _NOT_KEPT
    _write(measured, output or Path(run_id))
    _print(measured, run_id, form)
    if isinstance(kept, PonderError):
        raise kept


@bench.command("list")
@click.option("--suites", is_flag=True, help="List the shipped suites instead.")
@format_option("table", "json")
def list_runs(suites: bool, form: str) -> None:
    """List the runs that are kept, newest first."""
    if suites:
        known = [read_suite(name)[0] for name in shipped()]
        rows = [{"name": one.name, "description": one.description} for one in known]
        columns = [Column("suite", lambda row: row["name"]), Column("", lambda row: row["description"], may_fold=True)]
    else:
        with connect() as client:
            rows = list(client.bench_runs())
        columns = [
            Column("run", lambda row: row["id"]),
            Column("suite", lambda row: row["name"]),
            Column("kept at", lambda row: moment(row["created_at"])),
        ]
    if form == "json":
        print_json(rows)
    else:
        print_rows(rows, columns)


@bench.command()
@click.argument("run_id", metavar="RUN")
@click.option("-o", "--output", type=click.Path(path_type=Path), help="Write JSON, CSV and the HTML page here.")
@format_option("table", "json")
def show(run_id: str, output: Path | None, form: str) -> None:
    """Show a run that is kept."""
    with connect() as client:
        found = _read(client, run_id)
    if output is not None:
        _write(found, output)
    _print(found, run_id, form)


@bench.command()
@click.argument("run_id", metavar="RUN")
def delete(run_id: str) -> None:
    """Delete a run that is kept. Its batches and their results stay."""
    with connect() as client:
        client.delete_bench_run(run_id)


@bench.command()
@click.argument("a")
@click.argument("b")
@format_option("table", "json")
def compare(a: str, b: str, form: str) -> None:
    """Compare run B with run A, job by job.

    Jobs are paired by problem and seed. Each side is a run, or RUN:NUMBER for one of its cells, counted from 1. Two
    runs are compared cell by cell, wherever nothing but the model or the workers differs. A difference whose 95 %
    interval holds 0 may be chance.
    """
    with connect() as client:
        differences = list(_differences(client, a, b))
    if form == "json":
        print_json([one.model_dump(mode="json") for one in differences])
        return
    for one in differences:
        click.echo(f"A: {one.a.label}\nB: {one.b.label}\n{one.num_problems} problems, {one.num_pairs} pairs of jobs")
        rows = difference_rows(one)
        print_rows(rows, columns_of(rows))


def _differences(client: Client, a: str, b: str) -> Iterator[Difference]:
    """Raises InvalidInput if there is nothing to compare."""
    of_a, of_b = _cells(client, a), _cells(client, b)
    is_one = len(of_a) == len(of_b) == 1
    pairs = [(x, y) for x in of_a for y in of_b if is_one or x.key.is_comparable(y.key)]
    if not pairs:
        raise InvalidInput(f"{a} and {b} have no cells that differ only in model or workers: name two, RUN:NUMBER")
    for x, y in pairs:
        yield difference_of(x.key, records_of(client, x.batch_ids), y.key, records_of(client, y.batch_ids))


def _cells(client: Client, named: str) -> Sequence[CellFigures]:
    """Returns the cells of RUN, or the one of RUN:NUMBER. Raises InvalidInput."""
    run_id, colon, number = named.partition(":")
    found = _read(client, run_id).cells
    if not colon:
        return found
    if not number.isdecimal() or not 1 <= int(number) <= len(found):
        raise InvalidInput(f"{named}: the cells of {run_id} have the numbers 1 to {len(found)}")
    return [found[int(number) - 1]]


def _read(client: Client, run_id: str) -> BenchRun:
    try:
        return BenchRun.model_validate(client.bench_run(run_id)["document"])
    except ValidationError:
        raise InvalidInput(f"{run_id} was kept by another release of ponder, which wrote it differently") from None


def _stack(setting: WorkerSetting | None) -> AbstractContextManager[Client]:
    """Returns a client of what is up, or of what it starts. Raises Conflict if a setting needs workers of its own."""
    settings = Settings()
    home = Home(settings.home)
    if setting is not None and (settings.base_url or home.running_pid() is not None):
        raise Conflict(
            "this suite starts workers of its own: stop what is up (`ponder down`) and unset PONDER_BASE_URL, "
            "or set PONDER_HOME to another folder"
        )
    if settings.base_url:
        return connect(patience_s=_PATIENCE_S)
    return client_of_stack(home, lambda: _plan(setting))


def _plan(setting: WorkerSetting | None) -> Plan:
    if setting is None:
        return plan()
    known = [field.name for field in fields(WorkerOptions)]
    unknown = [name for name in setting.options if name not in known]
    if unknown:
        raise InvalidInput(f"workers.{setting.name}.options: {unknown[0]} is not one of {', '.join(known)}")
    options: Json = {
        name: tuple(value) if isinstance(value, list) else value for name, value in setting.options.items()
    }
    return plan(
        num_workers=setting.count,
        model=setting.model,
        reward_model=setting.reward_model,
        options=WorkerOptions(**options),
    )


@contextmanager
def _progress() -> Iterator[Tell]:
    """Shows on stderr which cell runs and how far it is. Elsewhere than in a terminal it writes a line for a cell."""
    console = err()
    seen: set[str] = set()
    with console.status("starting …") as status:

        def tell(label: str, num_settled: int, num_jobs: int) -> None:
            if label not in seen and not console.is_terminal:
                click.echo(f"{label}: {num_jobs:,} jobs", err=True)
            seen.add(label)
            status.update(f"{label}: {num_settled:,} of {num_jobs:,} jobs")

        yield tell


def _write(found: BenchRun, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "run.json").write_text(found.model_dump_json(indent=2) + "\n")
    (folder / "cells.csv").write_text(as_csv(found))
    (folder / "report.html").write_text(as_html(found))
    click.echo(f"  written to {folder}/: report.html, cells.csv, run.json", err=True)


def _print(found: BenchRun, run_id: str, form: str) -> None:
    if form == "json":
        print_json(found.model_dump(mode="json") | {"id": run_id})
        return
    unit = unit_of(found)
    took = duration(found.ended_at - found.began_at)
    click.echo(f"{run_id}: {found.suite.name}, {took}; times in seconds, cost in {unit.name}, direct", err=True)
    print_rows(cell_rows(found), cell_columns(found, unit))
    for name, reason in found.skipped.items():
        click.echo(f"{name} was not measured: {reason}", err=True)
    if found.differences:
        rows = verdict_rows(found)
        print_rows(rows, columns_of(rows))
