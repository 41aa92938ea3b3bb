"""The words for settings where somebody chooses them, so that a message can give a remedy in them."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Surface:
    """The name of each setting with which a file is read, as a command line or a form calls it.

    `choice` is how a `{value}` is given to a setting's `{name}`.
    """

    prompt: str
    answer: str
    id: str
    level: str
    encoding: str
    model: str
    choice: str

    def name(self, setting: str) -> str:
        return str(getattr(self, setting))

    def chosen(self, setting: str, value: str) -> str:
        return self.choice.format(name=self.name(setting), value=value)


OPTIONS = Surface("--prompt", "--answer", "--id", "--level", "--encoding", "--model", "`{name} {value}`")
"""The command line's."""
