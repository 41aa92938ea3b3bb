"""The command `ponder fleet log`."""

from __future__ import annotations

import time

import click

from ponder.cli.amount import Duration
from ponder.cli.api import connect
from ponder.cli.console import Column, moment, print_json, print_rows


@click.command("log")
@click.option("--limit", type=click.IntRange(1, 10_000), default=50, show_default=True, help="The newest so many.")
@click.option("--since", type=Duration(), help="Only those of the last 30m, 12h or 7d.")
@click.option("--json", "is_json", is_flag=True, help="Print them as JSON.")
def log(limit: int, since: int | None, is_json: bool) -> None:
    """Show what the autoscaler decided and why, and what came of it, the newest last. Needs an operator's key."""
    with connect() as client:
        rows = client.fleet_log(limit=limit, since=None if since is None else time.time() - since)
    rows.reverse()
    if is_json:
        print_json(rows)
        return
    print_rows(
        rows,
        [
            Column("when", lambda row: moment(row["at"])),
            Column("what", lambda row: row["action"]),
            Column("model", lambda row: row["model"]),
            Column("machine", lambda row: row["machine"]),
            Column("market", lambda row: row["market"]),
            Column("worker", lambda row: row["worker"] or "–"),
            Column("why", lambda row: row["reason"], may_fold=True),
        ],
        empty="no autoscaler has decided anything yet",
    )
