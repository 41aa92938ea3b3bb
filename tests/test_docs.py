"""The commands in the documentation work as shown."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
FORBIDDEN = ("ponder", "celery", "redis", "sqlalchemy", "pydantic", "structlog", "click")
WITHOUT_THEM = f"import sys\nsys.modules.update(dict.fromkeys({FORBIDDEN}))\n"


def test_the_engine_runs_by_itself_as_its_page_shows() -> None:
    page = (ROOT / "docs/engine.md").read_text()
    found = re.search(r"```python\n(.*?)```", page, re.DOTALL)
    assert found is not None
    run = subprocess.run(
        [sys.executable, "-c", WITHOUT_THEM + found[1]],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": "gpu_worker:kernels"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    assert run.stdout.strip().endswith("Answer: 22")
