"""SkyPilot tasks, each a cluster of one worker, launched by the command `sky`."""

from __future__ import annotations

import json
import shlex
from collections.abc import Sequence
from pathlib import Path

import ponder
from ponder.fleet.provider import Order, Pool
from ponder.fleet.providers.scripts import Command

_SECRETS = ("PONDER_DATABASE_URL", "PONDER_REDIS_URL")


class SkyPilot:
    """Writes a task for each worker into `folder`, and has `commands` launch and end it.

    A cluster ends by itself after its worker.
    """

    names_workers = False

    def __init__(self, arguments: Sequence[str], commands: Command, folder: Path) -> None:
        self._arguments = arguments
        self._commands = commands
        self._folder = folder

    def offers(self, machine: str, market: str) -> bool:
        return self._commands.offers(machine, market)

    def start(self, order: Order) -> str | None:
        self._folder.mkdir(parents=True, exist_ok=True)
        task_file(self._folder, order.id).write_text(task(order, self._arguments))
        return self._commands.start(order)

    def stop(self, order: Order) -> None:
        self._commands.stop(order)
        task_file(self._folder, order.id).unlink(missing_ok=True)

    def workers(self, pool: Pool) -> None:
        """Tells nothing: asking every cloud takes minutes. A worker whose incarnation has ended is stopped."""

    def close(self) -> None:
        """Leaves the clusters: the next autoscaler goes on with them."""


def task_file(folder: Path, id: str) -> Path:
    return folder / f"{id}.yaml"


def start_command(folder: Path) -> tuple[str, ...]:
    secrets = [word for name in _SECRETS for word in ("--secret", name)]
    return (
        "sky",
        "launch",
        "--yes",
        "--async",
        "--down",
        *secrets,
        "--cluster",
        "{id}",
        str(task_file(folder, "{id}")),
    )


def stop_command() -> tuple[str, ...]:
    return ("sky", "down", "--yes", "{id}")


def task(order: Order, arguments: Sequence[str]) -> str:
    """Returns the YAML of a task: its machine and market from the plan, and `ponder worker` with `arguments`.

    The machine's name in the price book is SkyPilot's name of the accelerator, in small letters.
    """
    pool = order.pool
    hardware = "cpus: 4+" if pool.machine == "cpu" else f"accelerators: {json.dumps(f'{pool.machine.upper()}:1')}"
    worker = ["ponder", "worker", *arguments, "--machine", pool.machine, "--market", pool.market]
    return "\n".join(
        [
            f"name: {json.dumps(order.id)}",
            "resources:",
            f"  {hardware}",
            f"  use_spot: {'true' if pool.market == 'spot' else 'false'}",
            "secrets:",
            *(f"  {name}: null" for name in _SECRETS),
            "setup: |",
            f"  pip install 'ponder[gpu]=={ponder.__version__}'",
            "run: |",
            f"  exec {shlex.join([*worker, '--worker-name', order.id])}",
            "",
        ]
    )
