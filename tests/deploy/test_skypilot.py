"""The SkyPilot task starts a worker as `ponder worker` can be started, and holds no secret."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import click
import yaml

from ponder.cli.main import cli

ROOT = Path(__file__).parents[2]
TASK = yaml.safe_load((ROOT / "deploy/skypilot/worker.yaml").read_text())


def test_the_task_runs_a_worker_with_options_that_it_has() -> None:
    filled = re.sub(r'"?\$(\w+)"?', lambda found: TASK["envs"][found[1]], TASK["run"])
    program, *arguments = shlex.split(filled.partition("&&")[0])
    assert program == ".venv/bin/ponder"
    command = cli.get_command(click.Context(cli), arguments[0])
    assert command is not None
    command.make_context(arguments[0], arguments[1:], resilient_parsing=False)


def test_the_task_has_the_market_of_its_machine_and_no_secret_of_its_own() -> None:
    assert TASK["resources"]["use_spot"] == (TASK["envs"]["MARKET"] == "spot")
    accelerator = TASK["resources"]["accelerators"].partition(":")[0]
    assert accelerator.lower() == TASK["envs"]["MACHINE"]
    assert not any(TASK["secrets"].values())


def test_the_setup_runs_scripts_of_this_checkout() -> None:
    assert (ROOT / "scripts/install.sh").is_file()
    assert "scripts/install.sh torch" in TASK["setup"]
    assert "-c constraints.txt" in TASK["setup"]
