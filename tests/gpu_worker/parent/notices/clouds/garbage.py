"""Answers that no documentation of a cloud has."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import strategies as st

STATUSES = st.sampled_from([200, 201, 400, 401, 403, 404, 429, 500, 503])

_VALUES: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["action", "time", "noticeTime", "Events", "x"]), inner, max_size=3)
    ),
    max_leaves=8,
)

GARBAGE = (
    st.binary(max_size=200)
    | _VALUES.map(lambda value: json.dumps(value).encode())
    | st.sampled_from([b"", b"[" * 100_000, b'{"a":' * 10_000, b"<html>TRUE</html>", b"true", b"\xff\xfeTRUE"])
)
