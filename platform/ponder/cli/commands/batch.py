"""The commands `ponder batches`, `cancel` and `retry`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import click

from ponder.cli.api import connect
from ponder.cli.console import Column, format_option, moment, print_json, print_rows


@click.command()
@click.option("--limit", type=click.IntRange(1), default=20, show_default=True)
@format_option("table", "json")
def batches(limit: int, form: str) -> None:
    """List the batches, newest first."""
    with connect() as client:
        rows = list(client.batches(limit))
    if form == "json":
        print_json(rows)
        return
    print_rows(
        rows,
        [
            Column("batch", lambda row: row["id"]),
            Column("status", lambda row: row["status"]),
            Column("created", lambda row: moment(row["created_at"])[:16]),
            Column("done", _done, is_number=True),
            Column("failed", lambda row: f"{row['request_counts']['failed']:,}", is_number=True),
            Column("file", lambda row: str((row.get("metadata") or {}).get("file", "–")), may_fold=True),
        ],
        empty="no batches yet: `ponder run FILE` makes one",
    )


def _done(row: Mapping[str, Any]) -> str:
    counts = row["request_counts"]
    return f"{counts['completed'] + counts['failed']:,}/{counts['total']:,}"


@click.command()
@click.argument("batch", metavar="BATCH")
@format_option("table", "json")
def cancel(batch: str, form: str) -> None:
    """Cancel BATCH. Settled jobs stay, and running ones stop within seconds."""
    with connect() as client:
        document = client.cancel(batch)
    if form == "json":
        print_json(document)
    else:
        click.echo(f"{batch} is {document['status']}", err=True)


@click.command()
@click.argument("batch", metavar="BATCH")
@click.option("--idempotency-key", metavar="KEY", help="A repeated key returns the same new batch.")
@format_option("table", "json")
def retry(batch: str, idempotency_key: str | None, form: str) -> None:
    """Run the failed and expired jobs of BATCH again, as a new batch whose id is printed."""
    with connect() as client:
        document = client.retry(batch, idempotency_key=idempotency_key)
    if form == "json":
        print_json(document)
        return
    click.echo(document["id"])
    click.echo(f"`ponder watch {document['id']}` shows its progress", err=True)
