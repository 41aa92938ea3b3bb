"""The commands in the documentation work as shown."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

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


PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *ROOT.glob("docs/**/*.md"), *ROOT.glob("examples/*.md")]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_between_pages_leads_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#\s]*)(?:#[^)]*)?\)", page.read_text()):
        if target and not target.startswith(("http:", "https:", "mailto:")):
            assert (page.parent / target).exists(), f"{page.name} links to {target}, which is not there"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_heading_that_a_link_names_is_there(page: Path) -> None:
    for target, anchor in re.findall(r"\]\(([^)#\s]*)#([^)]+)\)", page.read_text()):
        if not target.startswith(("http:", "https:")):
            other = page.parent / target if target else page
            assert anchor in _anchors(other.read_text()), f"{page.name} links to {target}#{anchor}, which is not there"


def test_the_architecture_names_files_and_folders_that_exist() -> None:
    page = (ROOT / "docs/architecture.md").read_text()
    for name in re.findall(r"`((?:platform|gpu_worker|kernels|migrations|tests|scripts)/[\w/.]*)`", page):
        assert (ROOT / name).exists(), f"{name} is not there"


def _anchors(text: str) -> set[str]:
    """The names that GitHub gives to headings: lower case, punctuation dropped, spaces as hyphens."""
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
