"""The command `ponder demo`: a real batch through a real queue, engine, search and database, and its bill."""

from __future__ import annotations

import secrets
import sys
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
    """Solve held-out problems of five levels with four strategies, and show what each one solved and cost.

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
    from ponder.embedded.plan import MODEL_NAME
    from ponder_worker.demo.demo_run import RELATIVE_WORK, STRATEGIES
    from ponder_worker.demo.summary import print_summary

    home = Home(Settings().home)
    with client_of_stack(home, lambda: plan(port=port)) as client:
        fingerprint = _fingerprint(client, MODEL_NAME)
        run = _find_run(client, home.path / "demo", problems, fingerprint)
        _introduce(run.problems_per_level, len(STRATEGIES))
        run.submit(client, MODEL_NAME, fingerprint)
        settled = follow(client, {run.batches[name]: RELATIVE_WORK[name] for name in STRATEGIES})
        batches = {name: settled[run.batches[name]] for name in STRATEGIES}
        code = print_summary(client, run, batches)
    run.finish()
    return code


def _find_run(client: Client, folder: Path, problems: int, fingerprint: str) -> DemoRun:
    """The run that was stopped, if it can go on, or a new one."""
    from ponder_worker.demo.demo_run import DemoRun

    run = DemoRun.find(folder, run_id=secrets.token_hex(6), problems_per_level=problems)
    if not run.is_begun:
        return run
    if run.can_go_on(client, fingerprint):
        click.echo("going on with the run that was stopped", err=True)
        return run
    click.echo(
        "the run that was stopped cannot go on (other models, or another database): starting a new one", err=True
    )
    run.abandon(client)
    return DemoRun.find(folder, run_id=secrets.token_hex(6), problems_per_level=problems)


def _fingerprint(client: Client, name: str) -> str:
    """The fingerprint of the weights that are served under this name. Raises SetupError if no worker serves them."""
    for model in client.models():
        if model["id"] == name and model["ponder"]["live_workers"]:
            return str(model["ponder"]["fingerprint"])
    raise SetupError(
        f"ponder is up already, but without a worker for the model {name}: "
        "stop it first (`ponder down`), or set PONDER_HOME to another folder"
    )


def _introduce(problems_per_level: int, num_strategies: int) -> None:
    num_problems = 5 * problems_per_level
    click.echo(
        f"{num_problems} problems that the model was never trained on, {num_strategies} ways of thinking: "
        f"{num_problems * num_strategies:,} jobs",
        err=True,
    )
