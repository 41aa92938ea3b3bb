from __future__ import annotations

from ponder_worker.engine_handle import parse


def test_what_postgres_could_not_store_does_not_get_through() -> None:
    assert parse(b'{"text": "a\\u0000b", "ids": [1], "logprob": -Infinity, "score": NaN}') == {
        "text": "a\ufffdb",
        "ids": [1],
        "logprob": None,
        "score": None,
    }


def test_a_surrogate_without_its_other_half_does_not_get_through() -> None:
    assert parse(b'{"text": "a\\ud800b \\ud83d\\ude00"}') == {"text": "a\ufffdb \U0001f600"}
