"""The commands `ponder tenant …`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import click

from ponder.cli.amount import Duration, whole_duration
from ponder.cli.api import connect
from ponder.cli.console import Column, format_option, moment, print_json, print_rows


@click.group()
def tenant() -> None:
    """Tenants, whose batches, keys and bills are invisible to each other. Needs an operator's key."""


@tenant.command()
@click.argument("name")
@click.option("--quota-tokens", type=click.IntRange(min=1), help="The most estimated tokens in flight at a time.")
@format_option("table", "json")
def create(name: str, quota_tokens: int | None, form: str) -> None:
    """Create a tenant and print its id."""
    with connect() as client:
        document = client.create_tenant(name, quota_tokens=quota_tokens)
    if form == "json":
        print_json(document)
    else:
        click.echo(document["id"])
        click.echo(f"`ponder key create NAME --tenant {document['id']}` makes a key for it", err=True)


@tenant.command()
@click.argument("tenant_id", metavar="TENANT")
@click.argument("tokens", type=click.IntRange(min=1), required=False)
def quota(tenant_id: str, tokens: int | None) -> None:
    """Let TENANT have at most TOKENS estimated tokens in flight. Without TOKENS, lift its quota."""
    with connect() as client:
        document = client.set_quota(tenant_id, tokens)
    limit = document["quota_tokens"]
    click.echo(f"{document['name']}: {'no quota' if limit is None else f'{limit:,} tokens in flight'}", err=True)


@tenant.command()
@click.argument("tenant_id", metavar="TENANT")
@click.argument("duration", type=Duration(), required=False)
def retention(tenant_id: str, duration: int | None) -> None:
    """Delete results of TENANT's new batches DURATION (30d, 12h) after their end, unless a batch says otherwise.

    Without DURATION, keep them for ever.
    """
    with connect() as client:
        document = client.set_retention(tenant_id, duration)
    click.echo(f"{document['name']}: results are kept {_retention(document)}", err=True)


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
                Column("quota", lambda row: "–" if row["quota_tokens"] is None else f"{row['quota_tokens']:,}"),
                Column("results kept", _retention),
                Column("created", lambda row: moment(row["created_at"])),
            ],
        )


def _retention(document: Mapping[str, Any]) -> str:
    expiry = document["output_expires_after"]
    return "for ever" if expiry is None else whole_duration(expiry["seconds"])
