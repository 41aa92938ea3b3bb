"""The command `ponder watch`."""

from __future__ import annotations

import sys
from collections.abc import Callable

import click

from ponder.cli import exit_code
from ponder.cli.api import connect
from ponder.cli.commands.estimate import totals_of
from ponder.cli.console import duration, format_option, print_json
from ponder.client import Client
from ponder.domain.money import dollars
from ponder.wire import Json

PATIENCE_S = 120.0
"""How long a watch tolerates an API that does not answer, because restarts take a while."""


@click.command()
@click.argument("batch", metavar="BATCH")
@format_option("table", "json")
def watch(batch: str, form: str) -> None:
    """Show the progress of BATCH until it is settled, has exhausted a budget, or waits for a yes to its pilot.

    Ctrl-C stops only the watching.
    """
    with connect(patience_s=PATIENCE_S) as client:
        settled = watch_until_settled(client, batch)
        if form == "json":
            print_json(settled)
        else:
            tell_end(settled)
    sys.exit(code_of(settled))


def watch_until_settled(
    client: Client, batch_id: str, *, each_round: Callable[[], None] | None = None, go_on: str | None = None
) -> Json:
    """Returns the batch once it is settled, exhausts a budget or waits after its pilot.

    Prints the estimate that a pilot makes, and on a terminal asks whether the rest shall run. Ctrl-C prints how to
    continue, with the command `go_on`, and ends the process.
    """
    from ponder.cli.progress import follow, is_over, is_pilot_waiting

    def watch_until(until: Callable[[Json], bool]) -> Json:
        return follow(client, {batch_id: 1.0}, title=batch_id, each_round=each_round, until=until)[batch_id]

    try:
        if _is_piloted(client.batch(batch_id)):
            _tell_pilot(watch_until(lambda batch: is_over(batch) or _has_passed(batch)))
        batch = watch_until(is_over)
        while is_pilot_waiting(batch) and _says_yes(batch):
            client.change(batch_id, ponder={"pilot": {"confirmed": True}})
            batch = watch_until(is_over)
        return batch
    except (KeyboardInterrupt, click.Abort):
        again = f"`{go_on}` goes on" if go_on else f"`ponder watch {batch_id}` watches again"
        click.echo(
            f"\nstopped watching; the batch continues. {again}, `ponder cancel {batch_id}` cancels it.", err=True
        )
        sys.exit(exit_code.INTERRUPTED)


def _is_piloted(batch: Json) -> bool:
    """Returns whether a pilot of the batch may still be running. Its row is made when the batch is validated."""
    own = batch.get("ponder") or {}
    is_asked_for = batch["status"] == "validating" and "pilot" in (own.get("options") or {})
    return is_asked_for or (own.get("pilot") or {}).get("state") in ("running", "waiting")


def _has_passed(batch: Json) -> bool:
    return ((batch.get("ponder") or {}).get("pilot") or {}).get("state") == "passed"


def _tell_pilot(batch: Json) -> None:
    from ponder.cli.progress import between

    pilot = (batch.get("ponder") or {}).get("pilot") or {}
    estimate = pilot.get("estimate")
    if estimate is None:
        return
    click.echo(f"pilot: {pilot['jobs']:,} of {estimate['jobs']:,} jobs. The whole batch, each 9 times in 10:", err=True)
    for title, total, written in totals_of(estimate):
        if total["estimate"] is not None:
            click.echo(f"  {title}: {between(total, written)}", err=True)
    click.echo(f"  resting on {estimate['generated_tokens']['rests_on']}", err=True)


def _says_yes(batch: Json) -> bool:
    """Asks on a terminal whether the rest of the batch shall run."""
    if not _is_terminal():
        return False
    click.echo(f"  {batch['ponder']['waiting']['message']}", err=True)
    return click.confirm("Run the rest?", err=True)


def _is_terminal() -> bool:
    return sys.stdin.isatty() and sys.stderr.isatty()


def tell_end(batch: Json) -> None:
    """Summarises a settled batch on stderr."""
    counts, own = batch["request_counts"], batch.get("ponder") or {}
    ended_at = next(
        (batch[f"{word}_at"] for word in ("completed", "failed", "expired", "cancelled") if batch.get(f"{word}_at")),
        None,
    )
    is_exhausted = code_of(batch) == exit_code.BUDGET_EXHAUSTED
    is_waiting = code_of(batch) == exit_code.PILOT_WAITING
    state = "stopped at a budget" if is_exhausted else "waits after its pilot" if is_waiting else batch["status"]
    took = f" in {duration(ended_at - batch['created_at'])}" if ended_at else ""
    spent = f", {dollars(own['direct_nanodollars'])}" if "direct_nanodollars" in own else ""
    failed = f", {counts['failed']:,} failed" if counts["failed"] else ""
    done = f"{counts['completed']:,} of {counts['total']:,} jobs completed{failed}{spent}"
    click.echo(f"{batch['id']} {state}{took}: {done}", err=True)
    if is_exhausted or is_waiting:
        click.echo(f"  {own['waiting']['message']}", err=True)
    for error in ((batch.get("errors") or {}).get("data") or [])[:5]:
        # The message of a row that was refused before it was sent contains its place.
        is_placed = error.get("code") == "invalid_row" or not error.get("line")
        place = "" if is_placed else f"line {error['line']}: "
        click.echo(f"  {place}{error['message']}" + (f" ({error['param']})" if error.get("param") else ""), err=True)
    if counts["failed"] and batch["status"] != "failed":
        click.echo(f"  why: ponder results {batch['id']} --errors", err=True)
    # A refused line never became a job and would be refused again.
    if not (is_exhausted or is_waiting) and any(
        (own.get("counts") or {}).get(state) for state in ("failed", "expired")
    ):
        click.echo(f"  again: ponder retry {batch['id']}", err=True)


def code_of(batch: Json) -> int:
    """Returns the exit code for a batch that `watch_until_settled` returned."""
    waiting = (batch.get("ponder") or {}).get("waiting") or {}
    if waiting.get("is_exhausted"):
        return exit_code.BUDGET_EXHAUSTED
    if waiting.get("reason") == "pilot":
        return exit_code.PILOT_WAITING
    is_clean = batch["status"] == "completed" and batch["request_counts"]["failed"] == 0
    return exit_code.SETTLED if is_clean else exit_code.SOME_JOBS_FAILED
