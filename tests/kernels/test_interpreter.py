import os
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent


def test_kernels_equal_their_references_in_the_interpreter() -> None:
    """Triton decides at its import whether kernels are interpreted, so that takes a process of its own."""
    command = [sys.executable, "-m", "pytest", "-q", "--confcutdir", str(HERE), "-p", "no:cacheprovider"]
    ran = subprocess.run(
        [*command, str(HERE / "interpreter_cases.py")],
        env={**os.environ, "TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=290,
        check=False,
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert " passed" in ran.stdout
