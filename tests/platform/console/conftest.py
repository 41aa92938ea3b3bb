"""A browser without scripts: a client that keeps cookies and sends the token of its pages."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import httpx2
import pytest


class Browser(httpx2.Client):
    """A client of the console that is signed in. `change` posts a form as htmx does."""

    def sign_in(self, key: str) -> httpx2.Response:
        return self.post("/sign-in", data={"key": key})

    def change(self, path: str, **form: str) -> httpx2.Response:
        token = re.search(r'X-CSRF-Token": "([0-9a-f]+)"', self.get("/").text)
        headers = {"X-CSRF-Token": token[1] if token else "", "HX-Request": "true"}
        return self.post(path, data=form, headers=headers)


@pytest.fixture
def browse(base_url: str) -> Iterator[Callable[[str], Browser]]:
    """Opens a browser that is signed in with a key."""
    with ExitStack() as opened:

        def browse(key: str) -> Browser:
            browser = opened.enter_context(Browser(base_url=base_url, headers={"Accept": "text/html"}, timeout=30))
            assert browser.sign_in(key).status_code == 303
            return browser

        yield browse


@pytest.fixture
def browser(browse: Callable[[str], Browser], operator_key: str) -> Browser:
    """An operator's browser."""
    return browse(operator_key)


@pytest.fixture
def new_key(base_url: str, operator_key: str) -> Callable[..., str]:
    """Makes a key of a tenant, which is made if it is new. Without a tenant it is the operator's."""

    def make(tenant: str | None = None, role: str = "submit") -> str:
        with httpx2.Client(base_url=base_url, headers={"Authorization": f"Bearer {operator_key}"}, timeout=30) as http:
            if tenant is not None:
                http.post("/v1/tenants", json={"name": tenant})
            body = {"name": "test", "role": role} | ({} if tenant is None else {"tenant": tenant})
            return str(http.post("/v1/keys", json=body).raise_for_status().json()["key"])

    return make
