"""An environment with the extra `charts`, which only slow tests need."""

from __future__ import annotations

import platform
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from package_index import ISOLATED, skip_without_index

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def charts_python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Python of that environment."""
    if (sys.platform, platform.machine()) != ("linux", "x86_64"):
        pytest.skip("helm-python-sdk has wheels for Linux on x86-64 only")
    skip_without_index()
    packages = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]["charts"]
    python = tmp_path_factory.mktemp("charts") / "venv" / "bin" / "python"
    for command in (
        [sys.executable, "-m", "venv", python.parents[1]],
        [python, "-m", "pip", "install", "--quiet", "-c", ROOT / "constraints.txt", *packages],
    ):
        done = subprocess.run(command, env=ISOLATED, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
    return python
