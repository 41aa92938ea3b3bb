from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import click
import pytest
import yaml

from ponder.cli.main import cli
from ponder.settings import Settings

ROOT = Path(__file__).parents[1]
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
OURS = {name: service for name, service in COMPOSE["services"].items() if "build" in service}


def test_the_compose_file_is_one_by_the_compose_specification() -> None:
    subprocess.run(
        [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec", "docker-compose.yml"],
        cwd=ROOT,
        check=True,
    )


@pytest.mark.parametrize("service", OURS)
def test_every_service_runs_a_command_that_ponder_has(service: str) -> None:
    name, *arguments = OURS[service]["command"]
    command = cli.get_command(click.Context(cli), name)
    assert command is not None, f"`ponder {name}` does not exist"
    command.make_context(name, [_filled(argument) for argument in arguments], resilient_parsing=False)


@pytest.mark.parametrize("service", OURS)
def test_every_variable_of_ours_is_one_that_the_settings_read(service: str) -> None:
    known = {f"PONDER_{field}".upper() for field in Settings.model_fields}
    given = {name for name in OURS[service]["environment"] if name.startswith("PONDER_")}
    assert given <= known


def test_no_secret_has_a_default() -> None:
    text = (ROOT / "docker-compose.yml").read_text()
    for secret in ("POSTGRES_PASSWORD", "REDIS_PASSWORD", "PONDER_OPERATOR_KEY"):
        uses = re.findall(rf"\$\{{{secret}(.*?)\}}", text)
        assert uses
        assert all(use.startswith(":?") for use in uses)


def test_every_service_is_watched_or_restarted() -> None:
    for name, service in COMPOSE["services"].items():
        assert service.get("restart") in {"unless-stopped", "on-failure"}, name


def _filled(argument: str) -> str:
    """`${NAME:-default}` as compose would fill it with an empty environment."""
    return re.sub(r"\$\{\w+:-(.*?)\}", r"\1", argument)
