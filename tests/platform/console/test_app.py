"""The console beside the API: its addresses, headers, errors and files."""

from __future__ import annotations

import re

import httpx2
from hostile_text import HOSTILE

from ponder.console.rendering import STATIC


def test_every_page_forbids_scripts_that_are_not_its_own(browser: httpx2.Client) -> None:
    for path in ("/", "/sign-in", "/nowhere"):
        headers = browser.get(path).headers
        assert "script-src 'self';" in headers["Content-Security-Policy"]
        assert "unsafe" not in headers["Content-Security-Policy"]
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert headers["Cache-Control"] == "no-store"


def test_addresses_of_the_api_stay_the_apis(browser: httpx2.Client) -> None:
    assert browser.get("/v1/nowhere").json()["error"]["code"] == "not_found"
    assert browser.post("/v1/batches").json()["error"]["code"] == "invalid_api_key"
    assert browser.get("/healthz").json() == {"status": "ok"}


def test_an_error_is_a_page_and_for_a_part_of_a_page_a_notice(browser: httpx2.Client) -> None:
    page = browser.get("/?after=batch_0")
    assert page.status_code == 404
    assert "<!doctype html>" in page.text
    assert "There is no such page" in page.text
    part = browser.get("/?after=batch_0", headers={"HX-Request": "true"})
    assert part.headers["HX-Retarget"] == "#notice"
    assert "<!doctype html>" not in part.text


def test_an_error_keeps_the_navigation_of_who_is_signed_in(browser: httpx2.Client, base_url: str) -> None:
    for path in ("/nowhere", "/batches/batch_0", "/?after=batch_0", "/?state=nonsense"):
        page = browser.get(path)
        assert page.status_code in (400, 404), path
        assert '<nav aria-label="Pages">' in page.text, path
    stranger = httpx2.get(f"{base_url}/nowhere", headers={"Accept": "text/html"})
    assert (stranger.status_code, "<nav" in stranger.text) == (404, False)


def test_the_navigation_marks_where_one_is(browser: httpx2.Client) -> None:
    for path, name in (
        ("/", "Batches"),
        ("/batches/batch_0", "Batches"),
        ("/cost", "Cost"),
        ("/bench/runs/x", "Bench"),
    ):
        current = re.findall(r'aria-current="(?:page|true)">([^<]+)</a>', browser.get(path).text.split("</nav>")[0])
        assert [one.split()[0] for one in current] == [name], path


def test_a_hostile_address_is_not_repeated_as_markup(base_url: str) -> None:
    for hostile in HOSTILE:
        for path, parameter in (("/sign-in", "next"), ("/", "after")):
            assert hostile not in httpx2.get(base_url + path, params={parameter: hostile}).text


def test_files_are_kept_by_browsers_and_nothing_else_is_served(base_url: str) -> None:
    page = httpx2.get(f"{base_url}/sign-in").text
    address = page.split('rel="stylesheet" href="')[1].split('"')[0]
    assert "immutable" in httpx2.get(base_url + address).headers["Cache-Control"]
    for other in (address.split("?")[0], f"{address}0"):
        assert httpx2.get(base_url + other).headers["Cache-Control"] == "no-store"
    for path in ("/static/../session.py", "/static/%2e%2e/session.py", "/static/vendor", "/static//etc/passwd"):
        assert httpx2.get(base_url + path).status_code == 404


def test_what_is_vendored_has_its_licence_beside_it() -> None:
    vendored = [file.name for file in (STATIC / "vendor").iterdir()]
    scripts = [name for name in vendored if name.endswith(".js")]
    assert scripts
    for script in scripts:
        assert any(script.startswith(name.removesuffix(".LICENSE")) for name in vendored if name.endswith(".LICENSE"))
