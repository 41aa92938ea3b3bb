"""A cloud whose machines are files, driven by a real script."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, Engine

from ponder.fleet.autoscaler import Autoscaler, Orders
from ponder.fleet.problem import Bounds
from ponder.fleet.providers.scripts import Command, Scripts
from ponder.settings import Settings

SETTINGS = Settings(fleet_interval_s=0.05, fleet_cool_down_s=0)

_SCRIPT = """#!/bin/sh
cd "$(dirname "$0")"
echo "$@" >>calls
test -e "$1.broken" && { echo "no quota" >&2; exit "$(cat "$1.broken")"; }
case "$1" in
  start) echo "$@" >"machines/$2"; echo "{\\"handle\\": \\"i-$2\\"}" ;;
  stop) rm -f "machines/$2" ;;
  list) set --; for machine in machines/*; do test -e "$machine" && set -- "$@" "\\"${machine#machines/}\\""; done
    (IFS=,; echo "[$*]") ;;
esac
"""


@dataclass(frozen=True)
class Cloud:
    folder: Path

    @property
    def machines(self) -> set[str]:
        return {path.name for path in (self.folder / "machines").iterdir()}

    @property
    def calls(self) -> list[str]:
        """The words of every call but the lists."""
        file = self.folder / "calls"
        lines = file.read_text().splitlines() if file.exists() else []
        return [line for line in lines if line != "list"]

    def provider(self, *, has_list: bool = True, offers: Collection[tuple[str, str]] = ()) -> Command:
        script = self.folder / "cloud"
        listing = f"{script} list" if has_list else None
        scripts = Scripts.parse(f"{script} start {{id}}", f"{script} stop {{id}} {{handle}}", listing)
        return Command(scripts, offers=offers)

    def take_away(self, name: str) -> None:
        (self.folder / "machines" / name).unlink()

    def break_verb(self, verb: str, exit_code: int = 1) -> None:
        (self.folder / f"{verb}.broken").write_text(str(exit_code))

    def repair(self, verb: str) -> None:
        (self.folder / f"{verb}.broken").unlink()


@pytest.fixture
def cloud(tmp_path: Path) -> Cloud:
    folder = tmp_path / "cloud"
    (folder / "machines").mkdir(parents=True)
    script = folder / "cloud"
    script.write_text(_SCRIPT)
    script.chmod(0o755)
    return Cloud(folder)


@pytest.fixture
def log(world: Any) -> Any:
    """Reads the log: what and why, the oldest first."""
    return lambda: [
        (row.action, row.reason) for row in world.sql("SELECT action, reason FROM fleet_decisions ORDER BY id")
    ]


@pytest.fixture
def connection(engine: Engine) -> Iterator[Connection]:
    with engine.connect() as connection:
        yield connection


@pytest.fixture
def autoscaler(connection: Connection, cloud: Cloud) -> Callable[..., Autoscaler]:
    def make(*models: str, offers: Sequence[tuple[str, str]] = (("cpu", "on_demand"),), **bounds: int) -> Autoscaler:
        orders = Orders(models, Bounds(**bounds), machines=tuple(offers))
        return Autoscaler(connection, cloud.provider(offers=offers), orders, SETTINGS)

    return make
