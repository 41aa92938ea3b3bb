"""Where a model comes from: a folder, a GGUF file, or a repository of the Hugging Face Hub."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Self

_NAME = r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,95}"
_REPOSITORY = re.compile(rf"({_NAME}/{_NAME})(?:@([A-Za-z0-9_][A-Za-z0-9_./-]*))?", re.ASCII)


@dataclass(frozen=True, slots=True)
class HubModel:
    """A repository of the Hub, at a branch, a tag or a commit."""

    repository: str
    revision: str = "main"

    @classmethod
    def parse(cls, model: str) -> Self | None:
        """Reads `org/name` or `org/name@revision`. Returns None for a path: what exists, or looks like nothing else."""
        found = _REPOSITORY.fullmatch(model)
        if found is None or Path(model).exists() or model.endswith(".gguf"):
            return None
        return cls(found[1], found[2] or "main")

    def __str__(self) -> str:
        return f"{self.repository}@{self.revision}"


def model_name(model: str) -> str:
    """Returns the name that jobs use for a model unless it is given another: the last part of what it comes from."""
    hub = HubModel.parse(model)
    if hub is not None:
        return hub.repository.partition("/")[2]
    return Path(model).resolve().name.removesuffix(".gguf")


def absolute(model: str | None) -> str | None:
    """Returns the place of a model for a process in another folder."""
    return model if model is None or HubModel.parse(model) else str(Path(model).absolute())
