"""The extras resolve for a stranger's pip, with the public index alone and none of this machine's configuration."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
from package_index import ISOLATED, skip_without_index

ROOT = Path(__file__).parents[2]
PYTHONS = ("3.11", "3.12", "3.13")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS = ["", *PROJECT["optional-dependencies"]]
(UV,) = re.findall(r"uv==[0-9.]+", (ROOT / "scripts" / "supply.sh").read_text())
# torch's CUDA builds pin these themselves, and CPU builds have none of them.
_OF_CUDA = re.compile(r"nvidia-|cuda-")

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


@pytest.mark.parametrize("extra", EXTRAS)
@pytest.mark.parametrize("version", PYTHONS)
def test_every_extra_resolves_on_the_public_index_to_the_pinned_versions(
    version: str, extra: str, tmp_path: Path
) -> None:
    skip_without_index()
    report = tmp_path / "report.json"
    target = f".[{extra}]" if extra else "."
    pip = [sys.executable, "-m", "pip", "--python", _interpreter(version), "install"]
    done = subprocess.run(
        [*pip, "--dry-run", "--ignore-installed", "--quiet", "--report", report, "-c", "constraints.txt", target],
        cwd=ROOT,
        env=ISOLATED,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert dict(_resolved(report)).items() <= _pinned().items()


def test_uv_resolves_the_install_of_the_readme(tmp_path: Path) -> None:
    skip_without_index()
    uv = tmp_path / "tools" / "bin" / "uv"
    for command in (
        [sys.executable, "-m", "venv", uv.parents[1]],
        [uv.with_name("pip"), "install", "--quiet", UV],
        [uv, "venv", "--quiet", "--python", sys.executable, tmp_path / "venv"],
        [uv, "pip", "install", "--dry-run", "--python", tmp_path / "venv", "-c", "constraints.txt", "-e", ".[demo]"],
    ):
        done = subprocess.run(command, cwd=ROOT, env=ISOLATED, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
    torch = _pinned()["torch"]
    assert f"+ torch=={torch}" in done.stderr


def _interpreter(version: str) -> str:
    """A Python of that version: on the PATH, or one of pyenv's."""
    places = [os.environ["PATH"], *map(str, Path.home().glob(f".pyenv/versions/{version}.*/bin"))]
    for place in places:
        found = shutil.which(f"python{version}", path=place)
        if found and subprocess.run([found, "-c", ""], capture_output=True, check=False).returncode == 0:
            return found
    pytest.skip(f"there is no Python {version} on this machine")


def _resolved(report: Path) -> Iterator[tuple[str, str]]:
    """Names and versions of what pip would install beside ponder itself and CUDA."""
    for item in json.loads(report.read_text())["install"]:
        name = _canonical(item["metadata"]["name"])
        if name != "ponder" and not _OF_CUDA.match(name):
            yield name, item["metadata"]["version"]


def _pinned() -> dict[str, str]:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    return {_canonical(name): version for name, _, version in (line.partition("==") for line in lines) if version}


def _canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()
