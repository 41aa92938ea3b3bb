"""The form of a new batch, as a browser without scripts fills it in."""

from __future__ import annotations

import html
import json
import re
from typing import Any

import httpx2

ROWS = [{"question": f"Compute {number} + 4.", "answer": str(number + 4), "level": "easy"} for number in range(20)]


def token_of(browser: httpx2.Client) -> str:
    found = re.search(r'name="csrf_token" value="([0-9a-f]+)"', browser.get("/new").text)
    assert found is not None
    return found[1]


def uploaded(browser: httpx2.Client, content: bytes, name: str = "problems.jsonl") -> str:
    """Uploads as a browser without scripts does. Returns the address of the next page."""
    sent = browser.post(
        "/new/file", data={"csrf_token": token_of(browser), "lines": ""}, files={"file": (name, content)}
    )
    assert sent.status_code == 303, sent.text
    return sent.headers["Location"]


def form_of(page: str) -> dict[str, str]:
    """Returns the fields of the batch's form, as a browser would send them."""
    form = page[page.index('<form id="batch"') :]
    fields = {
        name: html.unescape(value)
        for name, value in re.findall(r'<input type="hidden" name="([^"]+)" value="([^"]*)"', form)
    }
    for name, inner in re.findall(r'<select id="[^"]+" name="([^"]+)"[^>]*>(.*?)</select>', form, re.S):
        chosen = re.search(r'<option value="([^"]*)" selected', inner)
        fields[name] = html.unescape(chosen[1]) if chosen else ""
    for name, value in re.findall(r'<input id="[^"]+" name="([^"]+)"[^>]*?\svalue="([^"]*)"', form):
        fields[name] = html.unescape(value)
    return fields


def lines_of(rows: list[dict[str, Any]]) -> bytes:
    return b"\n".join(json.dumps(row).encode() for row in rows)
