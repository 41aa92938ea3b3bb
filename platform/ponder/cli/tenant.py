"""`ponder tenant`."""

from __future__ import annotations

import click

from ponder.cli.api import connect
from ponder.cli.console import Column, format_option, moment, print_json, print_rows


@click.group()
def tenant() -> None:
    """Who submits: batches, keys and bills of one tenant are invisible to the others. Needs an operator's key."""


@tenant.command()
@click.argument("name")
@format_option("table", "json")
def create(name: str, form: str) -> None:
    """Create a tenant and print its id."""
    with connect() as client:
        document = client.create_tenant(name)
    if form == "json":
        print_json(document)
    else:
        click.echo(document["id"])
        click.echo(f"`ponder key create NAME --tenant {document['id']}` makes a key for it", err=True)


@tenant.command("list")
@format_option("table", "json")
def list_tenants(form: str) -> None:
    """List the tenants."""
    with connect() as client:
        rows = client.tenants()
    if form == "json":
        print_json(rows)
    else:
        print_rows(
            rows,
            [
                Column("tenant", lambda row: row["id"]),
                Column("name", lambda row: row["name"]),
                Column("created", lambda row: moment(row["created_at"])),
            ],
        )
