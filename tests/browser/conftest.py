"""Chromium, and pages of a console whose fleet has no engines. Tests ask what a person would see.

A page that writes an error into its console, or asks anything of another machine, fails its test.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, sync_playwright
from served_api import served
from sqlalchemy import Engine
from visit import OPERATOR_KEY, Visit
from world import World

from ponder.embedded.redis import EmbeddedRedis
from ponder.settings import Settings


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.slow)
            item.add_marker(pytest.mark.browser)


@pytest.fixture(scope="session")
def chromium() -> Iterator[Browser]:
    path = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if path is None:
        pytest.skip("no Chromium here: `apt-get install chromium` on Debian")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def world(engine: Engine) -> World:
    return World(engine)


@pytest.fixture
def base_url(engine: Engine, redis_server: EmbeddedRedis) -> Iterator[str]:
    with served(engine, redis_server.url, Settings(), OPERATOR_KEY) as url:
        yield url


@pytest.fixture
def visit(chromium: Browser, base_url: str) -> Iterator[Visit]:
    before = len(chromium.contexts)
    made = Visit(chromium, base_url, [])
    yield made
    for context in chromium.contexts[before:]:
        context.close()
    assert made.troubles == []


@pytest.fixture
def has_no_barrier() -> Callable[[Page], None]:
    """Checks a page with axe-core: it has no violation that is serious or critical."""

    def check(page: Page) -> None:
        found = Axe().run(page).response["violations"]
        serious = [one for one in found if one["impact"] in ("serious", "critical")]
        assert serious == [], [(one["id"], one["help"], [node["html"] for node in one["nodes"]][:3]) for one in serious]

    return check


@pytest.fixture
def look(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Page, str], Path]:
    """Takes a screenshot of the whole page, for people to look at."""
    folder = tmp_path_factory.getbasetemp() / "screenshots"
    folder.mkdir(exist_ok=True)

    def take(page: Page, name: str) -> Path:
        path = folder / f"{name}.png"
        page.screenshot(path=path, full_page=True)
        return path

    return take
