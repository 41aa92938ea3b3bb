"""A click group that imports a command only when it is called, so that `--help` stays fast."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points

import click

from ponder.errors import SetupError
from ponder.remedy import pip_install

_ENTRY_POINTS = "ponder.commands"


@dataclass(frozen=True, slots=True)
class Lazy:
    """A command's place (`module:attribute`, or None for an entry point of its name) and line in the overview."""

    summary: str
    target: str | None = None
    extra: str = "worker"
    """The extra that provides an entry point."""


class LazyGroup(click.Group):
    """A group whose overview has `sections` of commands. Other entry points are found by name."""

    def __init__(self, *, sections: Mapping[str, Mapping[str, Lazy]], **arguments: object) -> None:
        super().__init__(**arguments)  # type: ignore[arg-type]
        self.sections = sections
        self.lazy = {name: lazy for commands in sections.values() for name, lazy in commands.items()}

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.lazy)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        lazy = self.lazy.get(cmd_name)
        if lazy is not None and lazy.target is not None:
            return _load(EntryPoint(cmd_name, lazy.target, _ENTRY_POINTS), "server")
        found = next(iter(entry_points(group=_ENTRY_POINTS, name=cmd_name)), None)
        if found is not None:
            return _load(found, lazy.extra if lazy else cmd_name)
        if lazy is None:
            return None
        extra = f"ponder[{lazy.extra}]"
        raise SetupError(f"`{ctx.info_name} {cmd_name}` is not installed: {pip_install(extra)}")

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        width = max(map(len, self.lazy))
        for title, commands in self.sections.items():
            with formatter.section(title):
                formatter.write_dl([(name.ljust(width), lazy.summary) for name, lazy in commands.items()])


def _load(entry_point: EntryPoint, extra: str) -> click.Command:
    """Loads a command. Raises SetupError, with the remedy, if a module of another project is missing."""
    try:
        module = import_module(entry_point.module)
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] in ("ponder", entry_point.module.partition(".")[0]):
            raise
        raise SetupError(
            f"`ponder {entry_point.name}` needs {error.name}, which is not installed: {pip_install(f'ponder[{extra}]')}"
        ) from error
    command = getattr(module, entry_point.attr)
    assert isinstance(command, click.Command), f"{entry_point.value} is not a click command"
    return command
