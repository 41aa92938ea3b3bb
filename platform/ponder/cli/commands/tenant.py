"""The commands `ponder tenant …`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeVar

import click

from ponder.cli.amount import Duration, whole_duration
from ponder.cli.api import connect
from ponder.cli.console import Column, format_option, moment, print_json, print_rows
from ponder.domain.budget import PERIODS
from ponder.domain.money import dollars
from ponder.wire import Json

_Command = TypeVar("_Command", bound=Callable[..., Any])

_LIMITS = {
    "dollars_per_day": "The most direct cost in a day (UTC).",
    "tokens_per_day": "The most generated tokens in a day.",
    "dollars_per_month": "The most direct cost in a month.",
    "tokens_per_month": "The most generated tokens in a month.",
}


@click.group()
def tenant() -> None:
    """Tenants, whose batches, keys and bills are invisible to each other.

    Needs an operator's key, except for `webhook` and for seeing one's own budget.
    """


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


def budget_options(command: _Command) -> _Command:
    """Adds the limits of a budget that renews, and `--lift`, to a command."""
    command = click.option("--lift", is_flag=True, help="Take the limits away that are not given.")(command)
    for name, explained in reversed(_LIMITS.items()):
        kind = click.FloatRange(0, min_open=True) if name.startswith("dollars") else click.IntRange(1)
        command = click.option(f"--{name.replace('_', '-')}", name, type=kind, help=explained)(command)
    return command


def changed_limits(given: Mapping[str, Any], *, lift: bool) -> Json:
    """Returns the body of a change: the limits that were given, and with `lift` null for the others."""
    return {name: limit for name, limit in given.items() if limit is not None or lift}


def print_budget(document: Json, form: str) -> None:
    """Shows a budget, on stderr unless it is asked for as JSON."""
    if form == "json":
        print_json(document)
        return
    owner = document["key"] or document["tenant"]
    for line in _lines(document) or ["no budget"]:
        click.echo(f"{owner}: {line}", err=True)


def _lines(document: Json) -> list[str]:
    return [
        f"{', '.join(_spent(limits))}; the {period} ends at {moment(limits['renews_at'])}"
        for period in PERIODS
        if (limits := document[period]) is not None
    ]


def _spent(limits: Mapping[str, Any]) -> Iterator[str]:
    if limits["limit_nanodollars"] is not None:
        yield f"{dollars(limits['spent_nanodollars'])} of {dollars(limits['limit_nanodollars'])} spent"
    if limits["limit_tokens"] is not None:
        yield f"{limits['spent_tokens']:,} of {limits['limit_tokens']:,} tokens generated"


@tenant.command()
@click.argument("tenant_id", metavar="TENANT")
@budget_options
@format_option("table", "json")
def budget(tenant_id: str, lift: bool, form: str, **given: Any) -> None:
    """Change what TENANT may spend in a day and a month, or show it. A tenant may see its own."""
    with connect() as client:
        print_budget(client.tenant_budget(tenant_id, **changed_limits(given, lift=lift)), form)


@tenant.command()
@click.argument("url", required=False)
@click.option("--remove", is_flag=True, help="Send no more events, except those of batches with a URL of their own.")
@click.option("--new-secret", is_flag=True, help="Make a new secret. For a day the one before signs, too.")
@format_option("table", "json")
def webhook(url: str | None, remove: bool, new_secret: bool, form: str) -> None:
    """Send the events of your own tenant's batches to URL, or show where they go. Prints a new secret, only once."""
    if remove and url:
        raise click.UsageError("--remove takes no URL")
    with connect() as client:
        document = client.set_webhook(url) if url or remove else client.webhook()
        if new_secret and "secret" not in document:
            document = client.new_webhook_secret()
    if form == "json":
        print_json(document)
        return
    if "secret" in document:
        click.echo(document["secret"])
        click.echo("save the secret now, it cannot be shown again", err=True)
    click.echo(f"events go to {document['url'] or 'nobody'}, {document['num_waiting']:,} wait", err=True)
    if document["last_error"]:
        click.echo(f"last error, {moment(document['last_error_at'])}: {document['last_error']}", err=True)


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
