from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tomllib
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


def test_every_service_is_restarted_and_migrate_only_so_often_that_up_ends() -> None:
    for name, service in COMPOSE["services"].items():
        assert service["restart"] == ("on-failure:5" if name == "migrate" else "unless-stopped"), name


def test_every_service_that_stays_has_a_health_check() -> None:
    assert {name for name, service in COMPOSE["services"].items() if "healthcheck" not in service} == {"migrate"}


@pytest.mark.parametrize("service", ["dispatcher", "autoscaler", "worker", "gpu-worker"])
def test_a_health_check_looks_at_the_file_that_the_service_touches(service: str) -> None:
    alive = OURS[service]["environment"]["PONDER_ALIVE_FILE"]
    assert alive in OURS[service]["healthcheck"]["test"][-1]
    assert any(alive.startswith(f"{folder}/") for folder in OURS[service]["tmpfs"]), "else it cannot be written"


@pytest.mark.parametrize("name", COMPOSE["services"])
def test_every_service_is_confined_and_its_log_is_bounded(name: str) -> None:
    service = COMPOSE["services"][name]
    assert service["read_only"]
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges=true"]
    assert {"max-size", "max-file"} <= service["logging"]["options"].keys()


def test_every_base_image_can_be_named_by_its_digest() -> None:
    named = [service["image"] for service in COMPOSE["services"].values() if "build" not in service]
    built = [service["build"]["args"]["PYTHON_IMAGE"] for service in OURS.values()]
    assert all(re.fullmatch(r"\$\{[A-Z]+_IMAGE:-.+\}", image) for image in [*named, *built])
    dockerfile = (ROOT / "Dockerfile").read_text()
    stages = {"scratch", "${EXTRAS}", *re.findall(r"^FROM \S+ AS (\w+)$", dockerfile, re.MULTILINE)}
    assert set(re.findall(r"^FROM (\S+)", dockerfile, re.MULTILINE)) - stages == {"${PYTHON_IMAGE}"}


def test_our_services_keep_no_capability() -> None:
    assert not [name for name, service in OURS.items() if "cap_add" in service]


def test_every_named_volume_of_ours_is_on_a_folder_that_the_image_gives_to_its_user() -> None:
    image = (ROOT / "Dockerfile").read_text()
    made = re.search(r"install -d -o ponder -g ponder -m 700 (.*)", image)
    assert made is not None
    mounts = [mount.split(":") for service in OURS.values() for mount in service.get("volumes", [])]
    named = {where for source, where, *_ in mounts if source in COMPOSE["volumes"]}
    assert named
    assert named <= set(made[1].split())


def test_workers_keep_what_they_compile() -> None:
    for worker in ("worker", "autoscaler", "gpu-worker"):
        assert "compiled:/home/ponder/.cache/ponder" in OURS[worker]["volumes"]


def test_no_secret_is_part_of_a_command_line() -> None:
    for name, service in COMPOSE["services"].items():
        words = service.get("command", []) + list(service["healthcheck"]["test"] if "healthcheck" in service else [])
        assert not [word for word in words if re.search(r"(?<!\$)\$\{?\w*(PASSWORD|KEY)", word)], name


def test_the_image_is_labelled_with_the_version_of_the_package() -> None:
    version = re.search(r"^ARG VERSION=(.*)$", (ROOT / "Dockerfile").read_text(), re.MULTILINE)
    assert version is not None
    assert version[1] == tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]


def test_the_build_sees_everything_that_the_dockerfile_copies() -> None:
    image = (ROOT / "Dockerfile").read_text()
    copied = {word for line in re.findall(r"^COPY (?!--)(.*) \S+$", image, re.MULTILINE) for word in line.split()}
    mounted = set(re.findall(r"--mount=type=bind,source=([^,]+),", image))
    ignored = (ROOT / ".dockerignore").read_text().split()
    assert "*" in ignored
    assert copied | mounted <= {line.removeprefix("!") for line in ignored}


def test_secrets_are_written_once_and_for_their_owner_alone(tmp_path: Path) -> None:
    script = tmp_path / "scripts" / "init-env.sh"
    script.parent.mkdir()
    shutil.copy(ROOT / "scripts" / "init-env.sh", script)
    subprocess.run([script], check=True, capture_output=True)
    written = (tmp_path / ".env").read_text()
    assert (tmp_path / ".env").stat().st_mode & 0o077 == 0
    needed = set(re.findall(r"\$\{(\w+):\?", (ROOT / "docker-compose.yml").read_text()))
    secrets = dict(re.findall(r"^(\w+)=(.+)$", written, re.MULTILINE))
    assert secrets.pop("COMPOSE_PROFILES") == "demo"
    assert secrets.keys() == needed | {"PONDER_WEBHOOK_KEY"}, "which an older server may lack"
    assert all(re.fullmatch(r"(pk-)?[0-9a-f]{48}", secret) for secret in secrets.values()), "fit for a URL"
    assert len(set(secrets.values())) == len(secrets)
    again = subprocess.run([script], check=False, capture_output=True, text=True)
    assert again.returncode == 1
    assert ".env exists" in again.stderr
    assert (tmp_path / ".env").read_text() == written


def _filled(argument: str) -> str:
    """`${NAME:-default}` as compose would fill it with an empty environment."""
    return re.sub(r"\$\{\w+:-(.*?)\}", r"\1", argument)
