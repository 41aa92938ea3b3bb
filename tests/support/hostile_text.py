"""Texts that a page must show as they are, and never obey."""

from __future__ import annotations

HOSTILE = (
    "<script>alert('script')</script>",
    "<img src=x onerror=alert('img')>",
    "\"><svg onload=alert('svg')>",
    "'><body onload=alert('body')>",
    "javascript:alert('link')",
    "</script><script>alert('closed')</script>",
    "</title><script>alert('title')</script>",
    "<a href=\"javascript:alert('a')\" autofocus onfocus=alert('focus')>x</a>",
    "{{ 7 * 7 }} ${alert('template')} #{7*7}",
    "<style>*{display:none}</style>",
    '" hx-get="/sign-out" hx-trigger="load',
    "<div hx-on:htmx:load=\"alert('htmx')\">",
    "\u202eright to left\u202c \u2028 line \u0000".replace("\u0000", "\ufffd"),
    "<textarea><!--",
)
"""Postgres stores no NUL, so none is here."""
