"""The build of torch that `scripts/install.sh` chooses, with a stand-in for Python that records what pip is asked."""

from __future__ import annotations

import os
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
CPU_INDEX = "--index-url https://download.pytorch.org/whl/cpu"
has_gpu = any(Path("/dev").glob("nvidia*"))


@dataclass(frozen=True, slots=True)
class Install:
    """What one run of the script printed, and what it asked pip for, a line a call."""

    said: str
    asked: list[str]


@dataclass(frozen=True, slots=True)
class Machine:
    """A folder of stand-ins for the programs that the script calls."""

    folder: Path

    def has(self, program: str, script: str) -> None:
        path = self.folder / program
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)

    def install_torch(self, **variables: str) -> Install:
        done = subprocess.run(
            ["sh", ROOT / "scripts" / "install.sh", "torch", self.folder / "python"],
            env={"PATH": f"{self.folder}:{os.environ['PATH']}"} | variables,
            capture_output=True,
            text=True,
            check=True,
            timeout=60,
        )
        return Install(done.stderr, (self.folder / "asked").read_text().splitlines())


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    """PyTorch's indexes answer here, and there is no nvidia-smi."""
    machine = Machine(tmp_path)
    machine.has("python", f'[ "$1" = -c ] || echo "$@" >> {tmp_path}/asked')
    machine.has("nvidia-smi", "exit 9")
    return machine


@pytest.mark.skipif(has_gpu, reason="this machine has an NVIDIA GPU")
def test_a_machine_without_a_gpu_gets_the_cpu_build_and_is_told_how_to_choose_otherwise(machine: Machine) -> None:
    install = machine.install_torch()
    assert CPU_INDEX in install.asked[0]
    (line,) = install.said.splitlines()
    assert "the cpu build" in line
    assert "no NVIDIA GPU" in line
    assert "PONDER_TORCH=cuda" in line


def test_a_machine_with_a_gpu_gets_what_the_package_index_has(machine: Machine) -> None:
    machine.has("nvidia-smi", "echo 'GPU 0: NVIDIA H200'")
    install = machine.install_torch()
    assert not any("--index-url" in call for call in install.asked)
    assert "PONDER_TORCH=cpu" in install.said


@pytest.mark.parametrize(("choice", "index"), [("cpu", CPU_INDEX), ("cu126", CPU_INDEX.replace("cpu", "cu126"))])
def test_the_user_has_the_last_word(machine: Machine, choice: str, index: str) -> None:
    machine.has("nvidia-smi", "echo 'GPU 0: NVIDIA H200'")
    install = machine.install_torch(PONDER_TORCH=choice)
    assert index in install.asked[0]
    assert "PONDER_TORCH" in install.said


def test_an_index_that_cannot_be_reached_costs_seconds_and_pip_takes_what_it_finds(machine: Machine) -> None:
    machine.has("python", f'[ "$1" != -c ] || exit 1; echo "$@" >> {machine.folder}/asked')
    began_at = time.monotonic()
    install = machine.install_torch(PONDER_TORCH="cpu")
    assert time.monotonic() - began_at < 20
    assert len(install.asked) == 1
    assert "--index-url" not in install.asked[0]
    assert "cannot be reached" in install.said


def test_every_build_is_held_to_the_constraints(machine: Machine) -> None:
    for call in machine.install_torch(PONDER_TORCH="cpu").asked:
        assert "-c constraints.txt" in call
