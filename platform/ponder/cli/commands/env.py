"""The command `ponder env`: prints the settings for other programs, as shell."""

from __future__ import annotations

import shlex

import click

from ponder.cli.api import api_key, base_url
from ponder.cli.console import print_json
from ponder.settings import Settings


@click.command()
@click.option("--format", "form", type=click.Choice(["shell", "json"]), default="shell", show_default=True)
def env(form: str) -> None:
    """Print `export` lines: after eval "$(ponder env)" the openai package and ponder's own commands talk to this API.

    \b
        eval "$(ponder env)"
        python -c 'from openai import OpenAI; print(OpenAI().models.list())'

    The output contains your API key.
    """
    settings = Settings()
    url, key = base_url(settings), api_key(settings)
    variables = {
        "OPENAI_BASE_URL": f"{url}/v1",
        "OPENAI_API_KEY": key,
        "PONDER_BASE_URL": url,
        "PONDER_API_KEY": key,
        "PONDER_HOME": str(settings.home.absolute()),
    }
    if form == "json":
        print_json(variables)
        return
    for name, value in variables.items():
        click.echo(f"export {name}={shlex.quote(value)}")
