"""The command `ponder submit`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from ponder.cli.api import connect
from ponder.cli.batch_file import BatchFile
from ponder.cli.console import format_option, print_json
from ponder.cli.submission_options import submission_options


@click.command()
@submission_options
@format_option("table", "json")
def submit(file: Path, form: str, **given: Any) -> None:
    """Submit FILE and print the batch's id.

    FILE has OpenAI batch lines, or is a plain data set (.jsonl, .json, .csv, .tsv, .parquet; each also
    .gz) whose fields are named:

    \b
        ponder submit requests.jsonl
        ponder submit gsm8k.jsonl --model demo --prompt question --answer answer --strategy best_of_n --n 16

    A line's own strategy, budget and verifier take precedence over these options; --model and those about
    sampling (--max-tokens … --continue-final-message) override every line.
    """
    batch_file = BatchFile.of(file, **given)
    with connect() as client:
        batch = batch_file.send(client)
    if form == "json":
        print_json(batch)
        return
    click.echo(batch["id"])
    click.echo(
        f"`ponder watch {batch['id']}` shows its progress, `ponder results {batch['id']} -o OUT` fetches it", err=True
    )
