"""The group of commands `ponder fleet …`."""

from __future__ import annotations

import click

from ponder.cli.lazy_group import Lazy, LazyGroup

SECTIONS = {
    "Commands": {
        "plan": Lazy("Show which workers are wanted now, and why.", "ponder.cli.commands.fleet.plan:plan"),
        "log": Lazy("Show what the autoscaler decided and why.", "ponder.cli.commands.fleet.decision_log:log"),
    },
}


@click.group(cls=LazyGroup, sections=SECTIONS)
def fleet() -> None:
    """The workers: how many are wanted, on which machines, and why, and what the autoscaler did."""
