"""The locks that images are installed from: the tested versions, with the hashes of their files."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
EXTRAS = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
DOCKERFILE = (ROOT / "Dockerfile").read_text()
_LINE = re.compile(
    r"^([A-Za-z0-9._-]+)==([^ ;]+)(?: ; [^\\]*)? \\\n((?:    --hash=sha256:[0-9a-f]{64}(?: \\)?\n)+)", re.MULTILINE
)


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def locked(image: str) -> dict[str, str]:
    text = (ROOT / f"requirements/{image}.txt").read_text()
    found = {normal(name): version for name, version, _ in _LINE.findall(text)}
    assert len(found) == len(re.findall(r"^[A-Za-z]", text, re.MULTILINE))  # every one has a version and hashes
    return found


def pinned() -> dict[str, str]:
    pairs = re.findall(r"^([A-Za-z0-9._-]+)==(\S+)$", (ROOT / "constraints.txt").read_text(), re.MULTILINE)
    return {normal(name): version for name, version in pairs}


@pytest.mark.parametrize(("image", "extra"), [("server", "server"), ("worker", "worker")])
def test_a_lock_has_every_dependency_in_the_version_that_the_tests_ran_with(image: str, extra: str) -> None:
    lock, tested = locked(image), pinned()
    differing = {name: (lock[name], tested[name]) for name in lock.keys() & tested.keys() if lock[name] != tested[name]}
    assert not differing, "run scripts/supply.sh lock"
    wanted = {normal(re.split(r"[\[<>=~!; ]", one)[0]) for one in [*EXTRAS[extra], *EXTRAS["server"], *EXTRAS["otel"]]}
    assert wanted - lock.keys() <= {"ponder", "torch"}, "run scripts/supply.sh lock"


def test_no_lock_has_a_build_of_torch() -> None:
    assert not [name for name in locked("worker") if re.match(r"torch|triton|nvidia-|cuda-", name)]


def test_an_image_takes_no_file_from_an_index_without_its_hash_but_torch() -> None:
    steps = [line.strip() for line in DOCKERFILE.splitlines() if re.search(r"\bpip\b.* install ", line)]
    assert len(steps) == 2
    assert all("--no-deps" in step and ("--require-hashes" in step or "--no-index" in step) for step in steps)


def test_an_audit_that_can_ask_nobody_says_that_it_is_skipped() -> None:
    nowhere = dict.fromkeys(("https_proxy", "HTTPS_PROXY", "http_proxy", "HTTP_PROXY"), "http://127.0.0.1:9")
    done = subprocess.run(
        [ROOT / "scripts/supply.sh", "audit"], env=os.environ | nowhere, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr.startswith("audit: skipped: api.osv.dev cannot be reached")) == (0, True)


@pytest.mark.slow
def test_a_locked_file_is_installed_and_another_one_is_refused(tmp_path: Path) -> None:
    lock = tmp_path / "server.txt"
    shutil.copy(ROOT / "requirements/server.txt", lock)
    pip = [sys.executable, "-m", "pip", "install", "--dry-run", "--ignore-installed", "--no-deps", "--require-hashes"]
    command = [*pip, "--quiet", "--report", tmp_path / "report.json", "-r", lock]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if "from versions: none" in done.stderr:
        pytest.skip("the package index cannot be reached")
    assert done.returncode == 0, done.stderr
    installed = json.loads((tmp_path / "report.json").read_text())["install"]
    assert {normal(one["metadata"]["name"]) for one in installed} <= locked("server").keys()
    lock.write_text(re.sub(r"sha256:[0-9a-f]", "sha256:0", lock.read_text(), count=99))
    assert (
        "THESE PACKAGES DO NOT MATCH THE HASHES"
        in subprocess.run(command, capture_output=True, text=True, check=False).stderr
    )


@pytest.mark.slow
def test_a_bill_of_materials_lists_what_is_locked(tmp_path: Path) -> None:
    for part in ("scripts", "requirements", "pyproject.toml"):
        (shutil.copytree if (ROOT / part).is_dir() else shutil.copy)(ROOT / part, tmp_path / part)
    done = subprocess.run([tmp_path / "scripts/supply.sh", "sbom"], capture_output=True, text=True, check=False)
    if "is the package index reachable" in done.stderr:
        pytest.skip("the package index cannot be reached")
    assert done.returncode == 0, done.stderr
    for image in ("server", "worker"):
        bill = json.loads((tmp_path / f"sbom/{image}.json").read_text())
        assert bill["bomFormat"] == "CycloneDX"
        assert {normal(one["name"]): one["version"] for one in bill["components"]} == locked(image)
