"""The command `ponder results`: fetches a batch's output and error files."""

from __future__ import annotations

import codecs
import sys
from pathlib import Path

import click

from ponder.cli.api import connect
from ponder.cli.terminal import below
from ponder.client import Client
from ponder.errors import Conflict, InvalidInput, Unreachable
from ponder.wire import Json

_TRIES = 3


@click.command()
@click.argument("batch", metavar="BATCH")
@click.option("-o", "--output", type=click.Path(path_type=Path), help="The file to write.  [default: stdout]")
@click.option("--errors", is_flag=True, help="Fetch the lines that were refused, failed, expired or cancelled instead.")
def results(batch: str, output: Path | None, errors: bool) -> None:
    """Fetch the results of BATCH once it has ended: OpenAI output lines, one per completed job."""
    with connect() as client:
        document = client.batch(batch)
        file_id = document["error_file_id" if errors else "output_file_id"]
        if file_id is None:
            what = "lines in error" if errors else "results"
            if document["status"] in ("validating", "in_progress", "cancelling"):
                raise Conflict(f"{batch} is still {document['status'].replace('_', ' ')} and has no {what} yet")
            click.echo(f"{batch} has no {what}", err=True)
        elif output is None:
            _print(client, file_id)
        else:
            fetch(client, file_id, output)
            click.echo(f"written to {output}", err=True)


def fetch_all(client: Client, batch: Json, output: Path) -> list[Path]:
    """Writes output to `output`, and errors, if any, beside it. Returns the written files."""
    written = []
    for file_id, place in ((batch["output_file_id"], output), (batch["error_file_id"], errors_beside(output))):
        if file_id is not None:
            fetch(client, file_id, place)
            written.append(place)
    return written


def errors_beside(output: Path) -> Path:
    return output.with_name(f"{output.stem}.errors.jsonl")


def check_writable(output: Path) -> None:
    """Raises InvalidInput before anything is spent on results that could not be written."""
    if output.is_dir() or not output.parent.is_dir():
        raise InvalidInput(
            f"{output} cannot be written: {'it is a folder' if output.is_dir() else 'its folder is missing'}"
        )


def fetch(client: Client, file_id: str, place: Path) -> None:
    """Writes a file as a whole or not at all. A broken connection starts over; an old file stays until the end."""
    draft = place.with_name(f".{place.name}.draft")
    for left in reversed(range(_TRIES)):
        try:
            with draft.open("wb") as target, client.download(file_id) as pieces:
                for piece in pieces:
                    target.write(piece)
            draft.replace(place)
            return
        except Unreachable:
            if not left:
                raise
        except OSError as error:
            raise InvalidInput(f"{place} cannot be written: {error.strerror}") from error
        finally:
            draft.unlink(missing_ok=True)


def _print(client: Client, file_id: str) -> None:
    """Prints a file byte by byte, or on a terminal as text."""
    with client.download(file_id) as pieces:
        if sys.stdout.isatty():
            sys.stdout.writelines(codecs.iterdecode(pieces, "utf-8", errors="replace"))
            return
        target = below(sys.stdout).buffer
        for piece in pieces:
            target.write(piece)
        target.flush()
