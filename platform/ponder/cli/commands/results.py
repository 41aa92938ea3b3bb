"""The command `ponder results`: fetches a batch's output and error files, or follows its results as they come."""

from __future__ import annotations

import codecs
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import click

from ponder.cli.api import connect
from ponder.cli.commands.result_files import ResultFiles, check_writable, fetch, fetch_all
from ponder.cli.commands.watch import PATIENCE_S, code_of, tell_end
from ponder.cli.terminal import below
from ponder.client import Client
from ponder.errors import Conflict
from ponder.wire import Json


@click.command()
@click.argument("batch", metavar="BATCH")
@click.option("-o", "--output", type=click.Path(path_type=Path), help="The file to write.  [default: stdout]")
@click.option("--errors", is_flag=True, help="Fetch the lines that were refused, failed, expired or cancelled instead.")
@click.option("--follow", is_flag=True, help="Fetch lines as jobs settle, in that order, until the batch has ended.")
def results(batch: str, output: Path | None, errors: bool, follow: bool) -> None:
    """Fetch the results of BATCH once it has ended: OpenAI output lines, one per completed job.

    With --follow it need not have ended. Each line then has a `cursor`, too. With -o it does what `ponder run` does:
    FILE and the file of lines in error beside it grow, are resumed where they end, and end in the order of the input.
    It ends early, as `ponder watch` does, if the batch has exhausted a budget or waits for a yes to its pilot.
    """
    if follow and errors and output is not None:
        raise click.UsageError("--follow -o FILE also writes the lines in error, beside FILE: leave out --errors")
    with connect(patience_s=PATIENCE_S if follow else 3.0) as client:
        if not follow:
            _fetch(client, batch, output, errors)
            return
        lookout = _Lookout(client, batch)
        if output is not None:
            _follow_into(client, batch, output, lookout)
        else:
            lines = client.follow_results(batch, has_stopped=lookout.has_stopped)
            _print(line.text for line in lines if line.is_error is errors)
        if lookout.stopped is not None:
            tell_end(lookout.stopped)
            sys.exit(code_of(lookout.stopped))


@dataclass(slots=True)
class _Lookout:
    """Looks at a batch while none of its lines comes, and says why it waits whenever the reason changes."""

    client: Client
    batch_id: str
    reason: str | None = None
    stopped: Json | None = None
    """The batch, once it only goes on with a higher budget or a yes to its pilot."""

    def has_stopped(self) -> bool:
        from ponder.cli.progress import is_exhausted, is_pilot_waiting

        batch = self.client.batch(self.batch_id)
        if is_exhausted(batch) or is_pilot_waiting(batch):
            self.stopped = batch
            return True
        waiting = batch["ponder"]["waiting"] or {}
        if waiting and waiting["reason"] != self.reason:
            click.echo(f"waiting: {waiting['message']}", err=True)
        self.reason = waiting.get("reason")
        return False


def _fetch(client: Client, batch: str, output: Path | None, errors: bool) -> None:
    document = client.batch(batch)
    file_id = document["error_file_id" if errors else "output_file_id"]
    if file_id is None:
        what = "lines in error" if errors else "results"
        if document["status"] in ("validating", "in_progress", "cancelling"):
            raise Conflict(
                f"{batch} is still {document['status'].replace('_', ' ')} and has no {what} yet: "
                "--follow fetches them as they come"
            )
        click.echo(f"{batch} has no {what}", err=True)
    elif output is None:
        with client.download(file_id) as pieces:
            _print(pieces)
    else:
        fetch(client, file_id, output)
        click.echo(f"written to {output}", err=True)


def _follow_into(client: Client, batch: str, output: Path, lookout: _Lookout) -> None:
    check_writable(output)
    with ResultFiles.resume(batch, output) as files:
        for line in client.follow_results(batch, after=files.cursor, has_stopped=lookout.has_stopped):
            files.write(line)
    for place in fetch_all(client, client.batch(batch), output) or files.written:
        click.echo(f"written to {place}", err=True)


def _print(pieces: Iterable[bytes]) -> None:
    """Prints pieces byte by byte as they come, or on a terminal as text."""
    if sys.stdout.isatty():
        sys.stdout.writelines(codecs.iterdecode(pieces, "utf-8", errors="replace"))
        return
    target = below(sys.stdout).buffer
    for piece in pieces:
        target.write(piece)
        target.flush()
