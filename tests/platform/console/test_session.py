"""Sessions: who gets one, what it allows, and when it ends."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from hashlib import sha256
from urllib.parse import quote

import httpx2
import pytest
from sqlalchemy import Engine, text
from world import World

from ponder.console.session import MOST_PER_KEY
from ponder.jobs.retention.prune import prune
from ponder.settings import Settings

Browse = Callable[[str], "httpx2.Client"]


def _home(world: World) -> str:
    [row] = world.sql("SELECT id FROM tenants WHERE name = 'home'")
    return str(row.id)


def test_postgres_keeps_only_the_hash_of_a_session(browser: httpx2.Client, engine: Engine) -> None:
    token = browser.cookies["ponder_session"]
    with engine.connect() as connection:
        [kept] = connection.execute(text("SELECT * FROM console_sessions")).all()
    assert token not in str(kept)
    assert token.encode() not in bytes(kept.sha256)


def test_the_cookie_is_out_of_reach_of_scripts_and_other_sites(base_url: str, operator_key: str) -> None:
    cookie = httpx2.post(f"{base_url}/sign-in", data={"key": operator_key}).headers["Set-Cookie"]
    assert "HttpOnly" in cookie
    assert "SameSite=lax" in cookie


@pytest.mark.parametrize("headers", [{"X-Forwarded-Proto": "https"}, {"Origin": "https://ponder.example"}])
def test_the_cookie_of_a_browser_that_speaks_tls_to_a_proxy_never_leaves_it_openly(
    base_url: str, operator_key: str, headers: dict[str, str]
) -> None:
    sign_in = {"data": {"key": operator_key}, "headers": headers | {"Sec-Fetch-Site": "same-origin"}}
    assert "Secure" in httpx2.post(f"{base_url}/sign-in", **sign_in).headers["Set-Cookie"]  # type: ignore[arg-type]
    plain = httpx2.post(f"{base_url}/sign-in", data={"key": operator_key}, headers={"X-Forwarded-Proto": "http"})
    assert "Secure" not in plain.headers["Set-Cookie"]


def test_a_wrong_key_gets_no_session(base_url: str) -> None:
    for key in ("", "pk-wrong", "\0"):
        answer = httpx2.post(f"{base_url}/sign-in", data={"key": key})
        assert answer.status_code == 401
        assert "Set-Cookie" not in answer.headers


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE api_keys SET revoked_at = clock_timestamp()",
        "UPDATE console_sessions SET expires_at = clock_timestamp()",
        "DELETE FROM console_sessions",
    ],
)
def test_a_session_that_has_ended_shows_nothing(browser: httpx2.Client, world: World, change: str) -> None:
    assert browser.get("/").status_code == 200
    world.sql(change)
    assert browser.get("/").headers["Location"] == "/sign-in?next=%2F"
    assert browser.get("/events?of=tenant").status_code == 401


def test_signing_out_ends_the_session_for_whoever_kept_the_cookie(browser: httpx2.Client) -> None:
    kept = browser.cookies["ponder_session"]
    assert browser.change("/sign-out").headers["HX-Redirect"] == "/sign-in"  # type: ignore[attr-defined]
    again = httpx2.get(f"{browser.base_url}/", cookies={"ponder_session": kept})
    assert again.status_code == 303


def test_signing_in_again_ends_the_session_before(browser: httpx2.Client, operator_key: str, world: World) -> None:
    kept = browser.cookies["ponder_session"]
    browser.sign_in(operator_key)  # type: ignore[attr-defined]
    assert httpx2.get(f"{browser.base_url}/", cookies={"ponder_session": kept}).status_code == 303
    assert browser.get("/").status_code == 200
    made = httpx2.post(
        f"{browser.base_url}/v1/console/links", headers={"Authorization": f"Bearer {operator_key}"}
    ).json()
    browser.get(made["path"])
    assert [row.num for row in world.sql("SELECT count(*) AS num FROM console_sessions")] == [1]


def test_a_key_has_so_many_sessions_at_most_and_the_oldest_ends(
    browser: httpx2.Client, operator_key: str, world: World
) -> None:
    second = {"ponder_session": _signed_in(browser, operator_key)}
    for _ in range(MOST_PER_KEY - 2):
        _signed_in(browser, operator_key)
    assert browser.get("/").status_code == 200
    _signed_in(browser, operator_key)
    assert browser.get("/").status_code == 303
    assert httpx2.get(f"{browser.base_url}/", cookies=second).status_code == 200
    assert [row.num for row in world.sql("SELECT count(*) AS num FROM console_sessions")] == [MOST_PER_KEY]


def test_sessions_of_one_key_end_none_of_another(browser: httpx2.Client, new_key: Callable[..., str]) -> None:
    key = new_key(role="operator")
    for _ in range(MOST_PER_KEY + 1):
        _signed_in(browser, key)
    assert browser.get("/").status_code == 200


def test_people_who_sign_in_at_once_are_no_more_than_a_key_may_have(
    browser: httpx2.Client, operator_key: str, world: World
) -> None:
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: _signed_in(browser, operator_key), range(2 * MOST_PER_KEY)))
    assert [row.num for row in world.sql("SELECT count(*) AS num FROM console_sessions")] == [MOST_PER_KEY]


def test_the_dispatcher_deletes_what_has_expired(
    browser: httpx2.Client, operator_key: str, engine: Engine, world: World
) -> None:
    kept = _signed_in(browser, operator_key)
    httpx2.post(f"{browser.base_url}/v1/console/links", headers={"Authorization": f"Bearer {operator_key}"})
    world.sql("UPDATE sign_in_links SET expires_at = clock_timestamp()")
    token = browser.cookies["ponder_session"].encode()
    world.sql("UPDATE console_sessions SET expires_at = clock_timestamp() WHERE sha256 = sha256(:token)", token=token)
    prune(engine, for_s=0.1)
    assert world.sql("SELECT 1 FROM sign_in_links") == []
    [left] = world.sql("SELECT sha256 FROM console_sessions")
    assert left.sha256 == sha256(kept.encode()).digest()


def test_a_flood_of_links_leaves_the_newest(base_url: str, operator_key: str, world: World) -> None:
    with httpx2.Client(base_url=base_url, headers={"Authorization": f"Bearer {operator_key}"}) as http:
        paths = [http.post("/v1/console/links").json()["path"] for _ in range(MOST_PER_KEY + 1)]
    assert [row.num for row in world.sql("SELECT count(*) AS num FROM sign_in_links")] == [MOST_PER_KEY]
    assert [httpx2.get(base_url + path).status_code for path in (paths[0], paths[1], paths[-1])] == [401, 303, 303]


def _signed_in(browser: httpx2.Client, key: str) -> str:
    """Signs in as another browser does. Returns its cookie."""
    return str(httpx2.post(f"{browser.base_url}/sign-in", data={"key": key}).cookies["ponder_session"])


@pytest.fixture
def settings() -> Settings:
    return Settings(max_requests_per_s=1)


def test_signing_in_counts_as_a_request_of_the_tenant(base_url: str, new_key: Callable[..., str]) -> None:
    key = new_key("busy")
    with httpx2.Client(base_url=base_url, headers={"Accept": "text/html"}, timeout=30) as http:
        answers = [http.post("/sign-in", data={"key": key}).status_code for _ in range(20)]
        assert set(answers) == {303, 429}


def test_sessions_that_have_ended_are_found_without_reading_the_others(engine: Engine) -> None:
    with engine.connect() as connection:
        connection.execute(text("SET enable_seqscan = off"))
        for table in ("console_sessions", "sign_in_links"):
            plan = connection.execute(text(f"EXPLAIN DELETE FROM {table} WHERE expires_at < now()")).scalars().all()
            assert "Index" in "".join(plan)


def test_a_page_without_its_token_changes_nothing(browser: httpx2.Client) -> None:
    for headers in ({}, {"X-CSRF-Token": ""}, {"X-CSRF-Token": "0" * 64}, {"X-CSRF-Token": "é".encode()}):
        assert browser.post("/sign-out", headers=headers).status_code == 403
    assert browser.get("/").status_code == 200


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
    ],
)
def test_another_site_cannot_sign_somebody_in(base_url: str, operator_key: str, headers: dict[str, str]) -> None:
    answer = httpx2.post(f"{base_url}/sign-in", data={"key": operator_key}, headers=headers)
    assert answer.status_code == 403
    assert "Set-Cookie" not in answer.headers


def test_a_page_behind_a_proxy_that_rewrites_the_host_can_sign_in(base_url: str, operator_key: str) -> None:
    headers = {"Origin": "https://ponder.example", "Sec-Fetch-Site": "same-origin"}
    assert httpx2.post(f"{base_url}/sign-in", data={"key": operator_key}, headers=headers).status_code == 303


@pytest.mark.parametrize(
    "wanted",
    [
        "https://evil.example/",
        "//evil.example",
        "/\\evil.example",
        "javascript:alert(1)",
        "evil",
        "/a\r\nSet-Cookie: x",
        "//[evil",
        "https://[evil",
    ],
)
def test_signing_in_never_leads_to_another_site(base_url: str, operator_key: str, wanted: str) -> None:
    answer = httpx2.post(f"{base_url}/sign-in", data={"key": operator_key, "next": wanted})
    assert answer.headers["Location"] == "/"
    assert "evil" not in httpx2.get(f"{base_url}/sign-in?next={quote(wanted, safe='')}").text


def test_signing_in_leads_to_an_address_in_any_script(
    base_url: str, operator_key: str, browser: httpx2.Client, world: World
) -> None:
    answer = httpx2.post(f"{base_url}/sign-in", data={"key": operator_key, "next": "/日 本?a=%20b"})
    assert answer.headers["Location"] == "/%E6%97%A5%20%E6%9C%AC?a=%20b"
    world.sql("DELETE FROM console_sessions")
    led = browser.get("/batches/%E6%97%A5%3F?a=b").headers["Location"]
    assert led == "/sign-in?next=%2Fbatches%2F%25E6%2597%25A5%253F%3Fa%3Db"


def test_a_link_signs_in_once_and_leads_on(base_url: str, operator_key: str) -> None:
    made = httpx2.post(f"{base_url}/v1/console/links", headers={"Authorization": f"Bearer {operator_key}"}).json()
    first = httpx2.get(f"{base_url}{made['path']}?next=/batches/batch_1")
    assert first.headers["Location"] == "/batches/batch_1"
    assert "ponder_session" in first.headers["Set-Cookie"]
    again = httpx2.get(f"{base_url}{made['path']}")
    assert again.status_code == 401
    assert "has been used" in again.text


def test_a_link_on_another_site_replaces_nobodys_session_and_is_not_used_up(base_url: str, operator_key: str) -> None:
    made = httpx2.post(f"{base_url}/v1/console/links", headers={"Authorization": f"Bearer {operator_key}"}).json()
    led = httpx2.get(base_url + made["path"], headers={"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate"})
    assert led.status_code == 403
    assert "Set-Cookie" not in led.headers
    assert "copy it into the address bar" in led.text
    assert httpx2.get(base_url + made["path"], headers={"Sec-Fetch-Site": "none"}).status_code == 303


def test_a_link_of_a_revoked_key_signs_nobody_in(base_url: str, operator_key: str, world: World) -> None:
    made = httpx2.post(f"{base_url}/v1/console/links", headers={"Authorization": f"Bearer {operator_key}"}).json()
    world.sql("UPDATE api_keys SET revoked_at = clock_timestamp()")
    assert httpx2.get(f"{base_url}{made['path']}").status_code == 401


def test_a_tenant_sees_only_its_own_batches(
    browser: httpx2.Client, browse: Browse, new_key: Callable[..., str], world: World
) -> None:
    batch = world.batch(tenant=_home(world))
    stranger = browse(new_key("strangers"))
    assert batch in browser.get("/").text
    assert batch not in stranger.get("/").text


@pytest.mark.parametrize("of", ["batch", "job", "fleet"])
def test_a_tenant_hears_nothing_of_what_is_not_its_own(
    browse: Browse, new_key: Callable[..., str], world: World, of: str
) -> None:
    batch = world.batch(tenant=_home(world))
    wanted = {"batch": batch, "job": f"job_{world.jobs(batch)[0]}", "fleet": ""}[of]
    stranger = browse(new_key("strangers"))
    answer = stranger.get(f"/events?of={of}&id={wanted}")
    assert answer.status_code == (403 if of == "fleet" else 404)


def test_an_operator_reads_another_tenant_and_changes_nothing_there(
    browser: httpx2.Client, world: World, browse: Browse, new_key: Callable[..., str]
) -> None:
    theirs = world.tenant()
    batch = world.batch(tenant=theirs)
    assert browser.change("/tenant", tenant=theirs).headers["HX-Redirect"] == "/"  # type: ignore[attr-defined]
    page = browser.get("/").text
    assert batch in page
    assert "can be read but not changed" in page
    stranger = browse(new_key("strangers"))
    assert stranger.change("/tenant", tenant=theirs).status_code == 403  # type: ignore[attr-defined]
    assert batch not in stranger.get("/").text


def test_an_operator_cannot_choose_a_tenant_that_does_not_exist(browser: httpx2.Client) -> None:
    for tenant in ("tenant_0", "x", ""):
        assert browser.change("/tenant", tenant=tenant).status_code in (400, 404)  # type: ignore[attr-defined]
