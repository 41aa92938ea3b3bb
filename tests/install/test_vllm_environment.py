"""vLLM's environment is made from its constraints, and everything that is promised of the engine holds in it."""

from __future__ import annotations

import os
import platform
import subprocess
from pathlib import Path

import pytest
from package_index import skip_without_index

ROOT = Path(__file__).parents[2]

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]


def test_the_tests_of_vllm_pass_in_an_environment_of_its_own() -> None:
    """A second time, the environment is there."""
    if (platform.system(), platform.machine()) != ("Linux", "x86_64"):
        pytest.skip("the tests of vLLM need Linux on x86-64")
    if Path("/dev/nvidiactl").exists():
        pytest.skip("the tests of vLLM compute on the CPU, and here its build for GPUs would be installed")
    skip_without_index()
    without_ours = {name: value for name, value in os.environ.items() if name != "OMP_WAIT_POLICY"}
    subprocess.run(["make", "test-vllm"], cwd=ROOT, env=without_ours, check=True)
