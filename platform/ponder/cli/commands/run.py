"""The command `ponder run`: submits, watches and fetches."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

from ponder.cli.api import connect
from ponder.cli.batch_file import BatchFile
from ponder.cli.commands.result_files import ResultFiles, check_writable, fetch_all
from ponder.cli.commands.watch import PATIENCE_S, code_of, tell_end, watch_until_settled
from ponder.cli.console import format_option, print_json
from ponder.cli.submission_options import submission_options


@click.command()
@submission_options
@click.option(
    "-o", "--output", type=click.Path(path_type=Path), help="The file for results.  [default: FILE.results.jsonl]"
)
@format_option("table", "json")
def run(file: Path, output: Path | None, form: str, **given: Any) -> None:
    """Submit FILE, watch it, and fetch its results.

    FILE has OpenAI batch lines, or is a plain data set (.jsonl, .json, .csv, .tsv, .parquet; each also
    .gz) whose fields are named:

    \b
        ponder run requests.jsonl -o results.jsonl
        ponder run gsm8k.jsonl --model demo --prompt question --answer answer --strategy best_of_n --n 16

    The results are OpenAI output lines; lines in error go to a file beside them. While the batch runs, both files
    grow as jobs settle; once it has ended, they are in the order of the input. Ctrl-C leaves the batch running.
    With --pilot, some problems run first, and their estimate of the whole batch is printed.
    A line's own strategy, budget and verifier take precedence over these options; --model and those about
    sampling (--max-tokens … --continue-final-message) override every line.
    """
    batch_file = BatchFile.of(file, **given)
    output = output or Path(f"{file.name.removesuffix('.gz').rpartition('.')[0]}.results.jsonl")
    check_writable(output)
    with connect(patience_s=PATIENCE_S) as client:
        batch = batch_file.send(client)
        with ResultFiles.resume(batch["id"], output) as files:
            go_on = f"ponder results {batch['id']} --follow -o {output}"
            batch = watch_until_settled(client, batch["id"], each_round=lambda: files.catch_up(client), go_on=go_on)
            files.catch_up(client)
        written = fetch_all(client, batch, output) or files.written
    if form == "json":
        print_json(batch | {"files": [str(place) for place in written]})
    else:
        tell_end(batch)
        for place in written:
            click.echo(f"  written to {place}", err=True)
        click.echo(f"  what it cost: ponder report cost --batch {batch['id']}", err=True)
    sys.exit(code_of(batch))
