"""The group of commands `ponder fleet …`."""

from __future__ import annotations

import click

from ponder.cli.lazy_group import Lazy, LazyGroup

SECTIONS = {
    "Commands": {
        "plan": Lazy("Show which workers are wanted now, and why.", "ponder.cli.commands.fleet.plan:plan"),
    },
}


@click.group(cls=LazyGroup, sections=SECTIONS)
def fleet() -> None:
    """The workers: how many are wanted, on which machines, and why."""
