"""The command `ponder demo`: a real batch through a real queue, engine, search and database, and its bill."""

from __future__ import annotations

import secrets
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ponder.cli import exit_code
from ponder.cli.lazy_group import Lazy, LazyGroup
from ponder.client import Client
from ponder.embedded.home import Home
from ponder.errors import SetupError
from ponder.settings import Settings

if TYPE_CHECKING:
    from ponder_worker.demo.demo_run import DemoRun

SECTIONS = {
    "Commands": {"train": Lazy("Train the demo models again, from a seed.", "ponder_worker.demo.training.train:train")}
}


@click.group(cls=LazyGroup, sections=SECTIONS, invoke_without_command=True)
@click.option(
    "--problems", type=click.IntRange(1, 2000), default=100, show_default=True, help="Number of problems a level."
)
@click.option("--port", type=click.IntRange(1, 65535), help="Where the API listens meanwhile.  [default: 8765]")
@click.pass_context
def demo(ctx: click.Context, problems: int, port: int | None) -> None:
    """Solve held-out problems of five levels with five strategies, and show what each one solved and cost.

    Starts everything on this machine (or uses what `ponder up` started) and stops what it started. Ctrl-C stops
    cleanly, and the next run goes on where this one stopped.
    """
    if ctx.invoked_subcommand is not None:
        return
    try:
        code = _show(problems, port)
    except KeyboardInterrupt:
        click.echo("\nstopped; everything so far is kept, and running the demo again goes on from here", err=True)
        sys.exit(exit_code.INTERRUPTED)
    sys.exit(code)


def _show(problems: int, port: int | None) -> int:
    from ponder.cli.commands.stack import client_of_stack, plan
    from ponder.cli.progress import follow
    from ponder_worker.demo.demo_run import RELATIVE_WORK
    from ponder_worker.demo.summary import print_summary

    home = Home(Settings().home)
    with client_of_stack(home, lambda: plan(port=port, with_large=True)) as client:
        fingerprints = _fingerprints(client)
        run = _find_run(client, home.path / "demo", problems, fingerprints)
        run.submit(client, fingerprints)
        _introduce(run.problems_per_level, len(run.batches))
        settled = follow(client, {batch_id: RELATIVE_WORK[name] for name, batch_id in run.batches.items()})
        batches = {name: settled[batch_id] for name, batch_id in run.batches.items()}
        code = print_summary(client, run, batches)
    run.finish()
    return code


def _find_run(client: Client, folder: Path, problems: int, fingerprints: Mapping[str, str]) -> DemoRun:
    """The run that was stopped, if it can go on, or a new one."""
    from ponder_worker.demo.demo_run import DemoRun

    run = DemoRun.find(folder, run_id=secrets.token_hex(6), problems_per_level=problems)
    if not run.is_begun:
        return run
    if run.can_go_on(client, fingerprints):
        click.echo("going on with the run that was stopped", err=True)
        return run
    click.echo(
        "the run that was stopped cannot go on (other models, or another database): starting a new one", err=True
    )
    run.abandon(client)
    return DemoRun.find(folder, run_id=secrets.token_hex(6), problems_per_level=problems)


def _fingerprints(client: Client) -> dict[str, str]:
    """The fingerprints of the demo's models that are served. Raises SetupError if no worker serves the small one."""
    from ponder.embedded.plan import LARGE_MODEL_NAME, MODEL_NAME

    served = {
        str(model["id"]): str(model["ponder"]["fingerprint"])
        for model in client.models()
        if model["id"] in (MODEL_NAME, LARGE_MODEL_NAME) and model["ponder"]["live_workers"]
    }
    if MODEL_NAME not in served:
        raise SetupError(
            f"ponder is up already, but without a worker for the model {MODEL_NAME}: "
            "stop it first (`ponder down`), or set PONDER_HOME to another folder"
        )
    if LARGE_MODEL_NAME not in served:
        click.echo(
            f"ponder is up already, but without a worker for the model {LARGE_MODEL_NAME}: `cascade` is left out "
            "(`ponder down`, and the demo starts one)",
            err=True,
        )
    return served


def _introduce(problems_per_level: int, num_strategies: int) -> None:
    num_problems = 5 * problems_per_level
    click.echo(
        f"{num_problems} problems that the models were never trained on, {num_strategies} ways of thinking: "
        f"{num_problems * num_strategies:,} jobs",
        err=True,
    )
