"""The command `ponder results`: fetches a batch's output and error files, or follows its results as they come."""

from __future__ import annotations

import codecs
import sys
from collections.abc import Iterable
from pathlib import Path

import click

from ponder.cli.api import connect
from ponder.cli.commands.result_files import ResultFiles, check_writable, fetch, fetch_all
from ponder.cli.commands.watch import PATIENCE_S
from ponder.cli.terminal import below
from ponder.client import Client
from ponder.errors import Conflict


@click.command()
@click.argument("batch", metavar="BATCH")
@click.option("-o", "--output", type=click.Path(path_type=Path), help="The file to write.  [default: stdout]")
@click.option("--errors", is_flag=True, help="Fetch the lines that were refused, failed, expired or cancelled instead.")
@click.option("--follow", is_flag=True, help="Fetch lines as jobs settle, in that order, until the batch has ended.")
def results(batch: str, output: Path | None, errors: bool, follow: bool) -> None:
    """Fetch the results of BATCH once it has ended: OpenAI output lines, one per completed job.

    With --follow it need not have ended. Each line then has a `cursor`, too. With -o it does what `ponder run` does:
    FILE and the file of lines in error beside it grow, are resumed where they end, and end in the order of the input.
    """
    if follow and errors and output is not None:
        raise click.UsageError("--follow -o FILE also writes the lines in error, beside FILE: leave out --errors")
    with connect(patience_s=PATIENCE_S if follow else 3.0) as client:
        if follow and output is not None:
            _follow_into(client, batch, output)
        elif follow:
            _print(line.text for line in client.follow_results(batch) if line.is_error is errors)
        else:
            _fetch(client, batch, output, errors)


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


def _follow_into(client: Client, batch: str, output: Path) -> None:
    check_writable(output)
    with ResultFiles.resume(batch, output) as files:
        for line in client.follow_results(batch, after=files.cursor):
            files.write(line)
    for place in fetch_all(client, client.batch(batch), output):
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
