import os
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent


@pytest.mark.timeout(1200)  # half a minute of work; on a busy machine that may take long
def test_kernels_equal_their_references_in_the_interpreter() -> None:
    """This takes a process of its own, because Triton decides at its import whether kernels are interpreted."""
    command = [sys.executable, "-m", "pytest", "-q", "--confcutdir", str(HERE), "-p", "no:cacheprovider"]
    ran = subprocess.run(
        [*command, str(HERE / "interpreter_cases.py")],
        env={**os.environ, "TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=1100,
        check=False,
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert " passed" in ran.stdout
