"""The measures of `scripts/shape.py`, on a package that breaks every rule and on one that breaks none."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[1] / "scripts" / "shape.py"
_CONTRACTS = '[[tool.importlinter.contracts]]\ntype = "layers"\nlayers = ["p.a : p.b | p.n0"]\n'
_LOOP = {"p/a.py": "import p.b", "p/b.py": "def f():\n    from p.n0 import x", "p/n0.py": "import p.a"}


def _measured(root: Path, files: dict[str, str]) -> tuple[int, str]:
    (root / "pyproject.toml").write_text(_CONTRACTS)
    for name, source in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(source)
    done = subprocess.run([sys.executable, SCRIPT, "p"], cwd=root, capture_output=True, text=True, check=False)
    assert done.stderr == ""
    return done.returncode, done.stdout


def test_a_package_in_good_shape_passes(tmp_path: Path) -> None:
    code, said = _measured(
        tmp_path,
        {
            "p/__init__.py": '"""A package."""\n',
            "p/a.py": '"""Reads a thing."""\nfrom p.b import x\n',
            "p/b.py": 'x: int = 1\n"""The thing."""\n',
            "p/n0.py": "from p import b\n",
        },
    )
    assert (code, "FAIL" in said) == (0, False)


@pytest.mark.parametrize(
    ("files", "breach"),
    [
        ({f"p/a/m{number}.py": "" for number in range(17)}, "p/a: 17"),
        ({"p/a.py": "from p import b", "p/b.py": ""}, "p/b.py: only p.a"),
        ({"p/a.py": "def f():\n" + "    x = 1\n" * 30}, "p/a.py:1 f: 31"),
        ({"p/a.py": "x: dict[str, Any]\n" * 41}, "p/a.py: 41"),
        ({f"p/{room}/m{number}.py": "" for room in "ab" for number in range(7)}, "m0: p/a/m0.py, p/b/m0.py"),
        ({"p/a.py": 'class A:\n    """Of one thing."""\n'}, "p/a.py:2 Of one thing."),
        ({"p/a.py": 'x = 1\n"""lower."""\n'}, "p/a.py:2 lower."),
        (_LOOP, "p.a -> p.b -> p.n0 -> p.a"),
        ({"p/c.py": ""}, "p.c"),
    ],
)  # fmt: skip
def test_a_breach_fails_and_is_shown_with_its_place(tmp_path: Path, files: dict[str, str], breach: str) -> None:
    code, said = _measured(tmp_path, {"p/__init__.py": "", **files})
    assert code == 1
    assert f"\n       {breach}" in said


def test_a_module_that_its_package_hands_on_has_the_importers_of_the_package(tmp_path: Path) -> None:
    files = {"p/__init__.py": "", "p/a/__init__.py": "from p.a.x import y", "p/a/x.py": "y = 1"}
    code, said = _measured(
        tmp_path, files | {"p/b.py": "from p.a import y", "p/n0.py": "from p import b\nfrom p.a import y"}
    )
    assert "x.py: only" not in said
    code, said = _measured(tmp_path, {"p/n0.py": "from p import b"})
    assert code == 1
    assert "p/a/x.py: only p.b" in said


def test_rows_of_a_table_may_have_one_importer(tmp_path: Path) -> None:
    rows = {
        "p/a/strategies/x.py": "",
        "p/b.py": "router = APIRouter()",
        "p/n0.py": "@click.command()\ndef run():\n    pass\n",
    }
    code, said = _measured(
        tmp_path, {"p/__init__.py": "", "p/a/__init__.py": "from p import b, n0\nfrom p.a.strategies import x", **rows}
    )
    assert (code, "FAIL" in said) == (0, False)


def test_a_use_case_may_have_one_importer_and_a_part_of_one_may_not(tmp_path: Path) -> None:
    files = {"p/__init__.py": "", "p/jobs/__init__.py": "", "p/jobs/cancel.py": "def cancel():\n    pass\n"}
    files |= {"p/a.py": "from p.jobs import cancel, ingestion", "p/jobs/ingestion.py": "def ingest():\n    pass\n"}
    code, said = _measured(tmp_path, files)
    assert code == 1
    assert "p/jobs/ingestion.py: only p.a" in said
    assert "cancel.py: only" not in said
