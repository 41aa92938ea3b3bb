"""SkyPilot tasks, each a cluster of one worker, launched by the command `sky`."""

from __future__ import annotations

import json
import shlex
from collections.abc import Sequence
from pathlib import Path

from ponder.errors import InvalidInput
from ponder.fleet.provider import Order, Pool
from ponder.fleet.providers.scripts import Command

_URLS = ("PONDER_DATABASE_URL", "PONDER_REDIS_URL")
_OPTIONAL = "HF_TOKEN"
_ACCELERATORS = frozenset(
    {"A10", "A100", "A100-80GB", "A10G", "B200", "H100", "H200", "L4", "L40S", "MI300X", "T4", "V100", "V100-32GB"}
)
"""SkyPilot's names of GPUs. Those of the price book are the same in small letters."""
_SETUP = ("scripts/install.sh", "constraints.txt")
"""The files of the repository that the setup of a machine needs."""


class SkyPilot:
    """Writes a task for each worker into `folder`, and has `commands` launch and end it.

    Its machine gets a copy of `checkout`, a clone of this repository, and installs ponder from it. A cluster ends by
    itself after its worker. Raises InvalidInput if there is no clone, or for a machine that is no GPU of SkyPilot's.
    """

    names_workers = False

    def __init__(self, arguments: Sequence[str], commands: Command, folder: Path, checkout: Path) -> None:
        for machine in sorted({machine for machine, _ in commands.offered}):
            if not _is_known(machine):
                known = ", ".join(sorted(name.lower() for name in _ACCELERATORS))
                raise InvalidInput(
                    f"{machine} is no GPU that SkyPilot knows: name one of {known}, or cpu", param="--machine"
                )
        if not all((checkout / name).is_file() for name in _SETUP):
            raise InvalidInput(
                f"{checkout} is no clone of ponder's repository, from which SkyPilot's machines are set up: "
                "start the autoscaler in one",
                param="--provider",
            )
        self._arguments = arguments
        self._checkout = checkout
        self._commands = commands
        self._folder = folder

    def offers(self, machine: str, market: str) -> bool:
        return _is_known(machine) and self._commands.offers(machine, market)

    def start(self, order: Order) -> str | None:
        self._folder.mkdir(parents=True, exist_ok=True)
        task_file(self._folder, order.id).write_text(task(order, self._arguments, self._checkout))
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


def start_command(folder: Path, *, has_token: bool = False) -> tuple[str, ...]:
    """Returns the command that launches a task. It takes the secrets from the environment, and refuses missing ones."""
    secrets = [word for name in (*_URLS, *([_OPTIONAL] if has_token else [])) for word in ("--secret", name)]
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


def task(order: Order, arguments: Sequence[str], checkout: Path) -> str:
    """Returns the YAML of a task: its machine and market from the plan, and `ponder worker` with `arguments`."""
    pool = order.pool
    hardware = "cpus: 4+" if pool.machine == "cpu" else f"accelerators: {json.dumps(f'{pool.machine.upper()}:1')}"
    worker = [".venv/bin/ponder", "worker", *arguments, "--machine", pool.machine, "--market", pool.market]
    return "\n".join(
        [
            f"name: {json.dumps(order.id)}",
            "resources:",
            f"  {hardware}",
            f"  use_spot: {'true' if pool.market == 'spot' else 'false'}",
            f"workdir: {json.dumps(str(checkout))}",
            "secrets:",
            *(f"  {name}: null" for name in _URLS),
            f'  {_OPTIONAL}: ""',
            "setup: |",
            "  python3 -m venv .venv",
            "  scripts/install.sh torch .venv/bin/python",
            f"  .venv/bin/pip install -c constraints.txt '.[{'worker' if pool.machine == 'cpu' else 'gpu'}]'",
            "run: |",
            f"  exec {shlex.join([*worker, '--worker-name', order.id])}",
            "",
        ]
    )


def _is_known(machine: str) -> bool:
    return machine == "cpu" or (machine.islower() and machine.upper() in _ACCELERATORS)
