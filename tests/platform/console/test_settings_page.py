"""Settings are read and changed in a browser as over the API, with the same refusals."""

from __future__ import annotations

import html
import re
from collections.abc import Callable
from typing import Any

import httpx2
import pytest
from sqlalchemy import Engine, text

from ponder.settings import Settings


@pytest.fixture
def settings() -> Settings:
    return Settings(webhook_key="k" * 32)  # type: ignore[arg-type]


@pytest.fixture
def submitter(browse: Callable[[str], Any], new_key: Callable[..., str]) -> Any:
    return browse(new_key("plain"))


def words(answer: httpx2.Response) -> str:
    return " ".join(html.unescape(re.sub(r"<[^>]+>", " ", answer.text)).split())


def test_a_new_key_is_shown_once_and_works_until_it_is_revoked(submitter: Any, base_url: str) -> None:
    made = submitter.change("/settings/keys", name="nightly", role="read")
    key = re.search(r'id="new-key">(pk-[^<]+)<', made.text)
    assert key is not None
    assert key[1] not in submitter.get("/settings").text
    asked = {"Authorization": f"Bearer {key[1]}"}
    [found] = [
        one for one in httpx2.get(f"{base_url}/v1/keys", headers=asked).json()["data"] if one["name"] == "nightly"
    ]
    assert found["role"] == "read"
    assert "revoked" in words(submitter.change("/settings/keys/revoke", key=found["id"]))
    assert httpx2.get(f"{base_url}/v1/keys", headers=asked).status_code == 401


def test_what_only_an_operator_may_do_is_refused_and_changes_nothing(
    submitter: Any, browser: Any, new_key: Callable[..., str], engine: Engine
) -> None:
    with engine.connect() as connection:
        tenant = connection.execute(text("SELECT id FROM tenants WHERE name = 'plain'")).scalar_one()
        stranger = connection.execute(text("SELECT id FROM api_keys WHERE role = 'operator'")).scalar_one()
    assert "Only an operator sees the tenants" in words(submitter.get("/settings"))
    refused = [
        submitter.change("/settings/budgets", owner=tenant, dollars_per_day="5"),
        submitter.change("/settings/retention", tenant=tenant, days="5"),
        submitter.change("/settings/prices", machine="x", market="spot", dollars_per_hour="1", source="x"),
        submitter.change("/settings/tenants", name="unwanted"),
        submitter.change("/settings/tenants/quota", tenant=tenant, quota_tokens="5"),
        submitter.change("/settings/keys", name="unwanted", role="operator"),
        submitter.get(f"/settings/tenants?tenant={tenant}"),
    ]
    assert [one.status_code for one in refused] == [403] * len(refused)
    assert submitter.change("/settings/keys/revoke", key=stranger).status_code == 404
    assert "unwanted" not in words(browser.get("/settings"))


def test_an_operator_sets_budgets_quota_and_retention_of_tenants(browser: Any, submitter: Any, engine: Engine) -> None:
    with engine.connect() as connection:
        tenant = connection.execute(text("SELECT id FROM tenants WHERE name = 'plain'")).scalar_one()
    told = browser.change("/settings/budgets", owner=tenant, dollars_per_day="5.5", tokens_per_month="1000")
    assert "The budget is set." in words(told)
    assert 'value="5.5"' in told.text
    browser.change("/settings/tenants/quota", tenant=tenant, quota_tokens="70000")
    browser.change("/settings/retention", tenant=tenant, days="30")
    page = words(submitter.get("/settings"))
    assert "$0 of $5.50" in page
    assert "0 of 1,000" in page
    assert "deleted 30 d after its end" in page
    assert "at most 70,000" in words(browser.get("/settings"))
    browser.change("/settings/budgets", owner=tenant)
    assert "$5.50" not in words(submitter.get("/settings"))
    wrong = browser.change("/settings/budgets", owner=tenant, dollars_per_day="much")
    assert "dollars_per_day" in words(wrong)


def test_an_operator_makes_a_tenant_and_a_price(browser: Any) -> None:
    assert "The tenant has been created" in words(browser.change("/settings/tenants", name="acme", quota_tokens=""))
    assert browser.change("/settings/tenants", name="acme").status_code == 409
    price = {"machine": "h100x8", "market": "spot", "dollars_per_hour": "19.95", "source": "a contract"}
    told = browser.change("/settings/prices", **price)
    assert "$19.95" in words(told)
    wrong = browser.change("/settings/prices", **price | {"dollars_per_hour": "cheap"})
    assert "dollars_per_hour" in words(wrong)
    assert wrong.headers["HX-Retarget"] == "#prices-told"  # the form stays as it was filled in


def test_a_webhook_is_set_with_a_secret_that_is_shown_once(submitter: Any) -> None:
    assert "nowhere" in words(submitter.get("/settings"))
    made = submitter.change("/settings/webhook", url="https://example.com/hook")
    secret = re.search(r'id="new-secret">(whsec_[^<]+)<', made.text)
    assert secret is not None
    page = submitter.get("/settings").text
    assert "https://example.com/hook" in page
    assert secret[1] not in page
    other = re.search(r'id="new-secret">(whsec_[^<]+)<', submitter.change("/settings/webhook/secret").text)
    assert other is not None
    assert other[1] != secret[1]
    assert "not a public address" in words(submitter.change("/settings/webhook", url="https://127.0.0.1/"))


def test_pruning_shows_what_it_would_delete_before_it_does(submitter: Any, engine: Engine) -> None:
    token = re.search(r'X-CSRF-Token": "([0-9a-f]+)"', submitter.get("/").text)
    assert token is not None
    submitter.post("/new/file", data={"csrf_token": token[1]}, files={"file": ("a.jsonl", b'{"problem": "x"}')})
    told = words(submitter.change("/settings/prune", older_than_days="0"))
    assert "0 batches with 0 lines, 1 files, 16 B" in told
    with engine.connect() as connection:
        assert connection.execute(text("SELECT count(*) FROM files WHERE deleted_at IS NULL")).scalar_one() == 1
    told = words(submitter.change("/settings/prune", older_than_days="0", confirmed="yes"))
    assert "1 files were discarded" in told
    with engine.connect() as connection:
        assert connection.execute(text("SELECT count(*) FROM files WHERE deleted_at IS NULL")).scalar_one() == 0


def test_a_key_that_may_only_read_sees_settings_and_changes_none(
    browse: Callable[[str], Any], new_key: Callable[..., str]
) -> None:
    reader = browse(new_key("plain", "read"))
    page = reader.get("/settings")
    assert "This key may only read" in words(page)
    assert "<form" not in page.text
    assert reader.change("/settings/keys", name="unwanted").status_code == 403


def test_changes_without_a_token_are_refused(submitter: Any) -> None:
    paths = ("keys", "keys/revoke", "budgets", "retention", "prune", "webhook", "webhook/secret", "prices", "tenants")
    form = {"name": "x", "key": "key_0", "owner": "key_0", "tenant": "tenant_0"}
    assert [submitter.post(f"/settings/{path}", data=form).status_code for path in paths] == [403] * len(paths)


def test_an_operator_who_looks_at_another_tenant_sees_its_settings_only(
    browser: Any, submitter: Any, engine: Engine
) -> None:
    submitter.change("/settings/keys", name="theirs alone", role="read")
    with engine.connect() as connection:
        tenant = connection.execute(text("SELECT id FROM tenants WHERE name = 'plain'")).scalar_one()
    browser.change("/tenant", tenant=tenant)
    page = browser.get("/settings")
    assert "Settings of plain" in words(page)
    assert "theirs alone" in page.text
    assert browser.change("/settings/keys", name="unwanted").status_code == 403


def test_a_tenant_reads_itself_and_no_other_over_the_api(
    base_url: str, new_key: Callable[..., str], operator_key: str, engine: Engine
) -> None:
    key = new_key("plain")
    with engine.connect() as connection:
        ids = {row.name: row.id for row in connection.execute(text("SELECT id, name FROM tenants"))}
    asked = {"Authorization": f"Bearer {key}"}
    assert httpx2.get(f"{base_url}/v1/tenants/{ids['plain']}", headers=asked).json()["name"] == "plain"
    assert httpx2.get(f"{base_url}/v1/tenants/{ids['home']}", headers=asked).status_code == 404
    operator = {"Authorization": f"Bearer {operator_key}"}
    assert httpx2.get(f"{base_url}/v1/tenants/{ids['plain']}", headers=operator).status_code == 200
