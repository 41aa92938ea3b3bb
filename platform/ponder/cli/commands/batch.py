"""The commands `ponder batches`, `cancel`, `budget`, `pause`, `resume`, `confirm`, `retry` and `prune`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import click

from ponder.cli.amount import Duration
from ponder.cli.api import connect
from ponder.cli.console import Column, format_option, moment, print_json, print_rows
from ponder.cli.submission_options import batch_budget
from ponder.domain.money import dollars


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
@click.option("--max-dollars", type=click.FloatRange(0, min_open=True), help="The most it may cost.")
@click.option("--max-tokens-total", type=click.IntRange(1), help="The most tokens it may generate.")
@click.option("--lift", is_flag=True, help="Take the limits away that are not given.")
@format_option("table", "json")
def budget(batch: str, lift: bool, form: str, **given: Any) -> None:
    """Change what BATCH may spend, or show it. A batch that stopped at its budget goes on."""
    changes = batch_budget(given)
    if lift:
        changes = {"batch_budget": {"dollars": None, "tokens": None} | changes.get("batch_budget", {})}
    with connect() as client:
        document = client.change(batch, ponder=changes) if changes else client.batch(batch)
    if form == "json":
        print_json(document)
    else:
        click.echo(f"{batch}: {_spent(document['ponder']['budget'])}", err=True)


def _spent(budget: Mapping[str, Any] | None) -> str:
    if budget is None:
        return "no budget"
    limits = []
    if budget["limit_nanodollars"] is not None:
        limits.append(f"{dollars(budget['spent_nanodollars'])} of {dollars(budget['limit_nanodollars'])} spent")
    if budget["limit_tokens"] is not None:
        limits.append(f"{budget['spent_tokens']:,} of {budget['limit_tokens']:,} tokens generated")
    return ", ".join(limits)


@click.command()
@click.argument("batch", metavar="BATCH")
def pause(batch: str) -> None:
    """Pause BATCH. Running jobs are handed back with what they have, and nothing more starts."""
    with connect() as client:
        client.change(batch, ponder={"paused": True})
    click.echo(f"{batch} is paused: `ponder resume {batch}` continues it", err=True)


@click.command()
@click.argument("batch", metavar="BATCH")
def resume(batch: str) -> None:
    """Resume the paused BATCH."""
    with connect() as client:
        _tell_whether_it_continues(client.change(batch, ponder={"paused": False}))


@click.command()
@click.argument("batch", metavar="BATCH")
def confirm(batch: str) -> None:
    """Say yes to the estimate that the pilot of BATCH made, so that the rest runs."""
    with connect() as client:
        _tell_whether_it_continues(client.change(batch, ponder={"pilot": {"confirmed": True}}))


def _tell_whether_it_continues(document: Mapping[str, Any]) -> None:
    waiting = document["ponder"]["waiting"] or {}
    is_stopped = waiting.get("reason") in ("pilot", "budget", "paused")
    click.echo(f"{document['id']} {'waits: ' + waiting['message'] if is_stopped else 'continues'}", err=True)


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


@click.command()
@click.option("--dry-run", is_flag=True, help="Only say what would go.")
@click.option("--older-than", type=Duration(), metavar="DURATION", help="Also what ended longer ago: 30d, 12h.")
@click.option("--tenant", metavar="TENANT", help="With an operator's key: another tenant's id, or all.")
@format_option("table", "json")
def prune(dry_run: bool, older_than: int | None, tenant: str | None, form: str) -> None:
    """Delete the prompts, results, search trees and files of batches whose results have expired.

    What reports add up stays. Nothing of a batch that has not ended is deleted.
    """
    with connect() as client:
        found = client.prune(dry_run=dry_run, older_than_s=older_than, tenant=tenant)
    if form == "json":
        print_json(found)
        return
    what = f"{found['batches']:,} batches with {found['lines']:,} lines, {found['files']:,} files: {_size(found)}"
    click.echo(
        f"would delete {what}" if dry_run else f"deleted {what}; Postgres frees the room within minutes", err=True
    )


def _size(found: Mapping[str, Any]) -> str:
    return f"{found['bytes'] / 1e6:,.1f} MB"
