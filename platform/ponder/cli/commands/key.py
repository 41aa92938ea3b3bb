"""The commands `ponder key …`."""

from __future__ import annotations

from typing import Any

import click

from ponder.cli.api import connect
from ponder.cli.commands.tenant import budget_options, changed_limits, print_budget
from ponder.cli.console import Column, format_option, moment, print_json, print_rows
from ponder.domain.role import Role


@click.group()
def key() -> None:
    """API keys: ponder keeps only a hash of them, so a key is shown once."""


@key.command()
@click.argument("name")
@click.option("--tenant", help="The key's tenant; operators only.  [default: your own tenant]")
@click.option(
    "--role",
    type=click.Choice([role.value for role in Role]),
    default=Role.SUBMIT.value,
    show_default=True,
    help="operator: administers tenants, keys and prices; read: changes nothing.",
)
@format_option("table", "json")
def create(name: str, tenant: str | None, role: str, form: str) -> None:
    """Create a key and print it, only this once."""
    with connect() as client:
        document = client.create_key(name, tenant=tenant, role=role)
    if form == "json":
        print_json(document)
    else:
        click.echo(document["key"])
        click.echo(f"{document['id']}: save the key now, it cannot be shown again", err=True)


@key.command()
@click.argument("key_id", metavar="KEY")
@budget_options
@format_option("table", "json")
def budget(key_id: str, lift: bool, form: str, **given: Any) -> None:
    """Change what the batches of KEY, an id, may spend in a day and a month, or show it. Only operators change it."""
    with connect() as client:
        print_budget(client.key_budget(key_id, **changed_limits(given, lift=lift)), form)


@key.command("list")
@format_option("table", "json")
def list_keys(form: str) -> None:
    """List the keys, by their first characters."""
    with connect() as client:
        rows = client.keys()
    if form == "json":
        print_json(rows)
        return
    print_rows(
        rows,
        [
            Column("key", lambda row: row["id"]),
            Column("name", lambda row: row["name"]),
            Column("begins", lambda row: f"{row['hint']}…"),
            Column("role", lambda row: row["role"]),
            Column("created", lambda row: moment(row["created_at"])),
            Column("revoked", lambda row: moment(row["revoked_at"])),
        ],
    )


@key.command()
@click.argument("key_id")
def revoke(key_id: str) -> None:
    """Revoke a key, immediately and permanently."""
    with connect() as client:
        client.revoke_key(key_id)
    click.echo(f"{key_id} is revoked", err=True)
