from __future__ import annotations

from datetime import UTC, datetime

import pytest

from ponder.domain.dimension import read_dimensions, read_filter, read_moment
from ponder.errors import InvalidInput


def test_dimensions_keep_their_order_and_come_once() -> None:
    assert read_dimensions(" day,metadata.team , day,") == ("day", "metadata.team")
    assert read_dimensions("") == ()


@pytest.mark.parametrize("written", ["colour", "metadata.", "strategy; DROP TABLE jobs", "metadata." + "x" * 65])
def test_an_unknown_dimension_is_answered_with_the_known_ones(written: str) -> None:
    with pytest.raises(InvalidInput, match=r"by: .* is not one of strategy, level, .*metadata\.FIELD") as raised:
        read_dimensions(written)
    assert raised.value.param == "by"


def test_a_filter_takes_values_and_the_ids_of_batches() -> None:
    assert read_filter("strategy=direct, level=a=b", "a") == {"strategy": "direct", "level": "a=b"}
    assert read_filter("batch_12", "a") == {"batch": "batch_12"}
    for written in ("", "direct", "strategy=", "colour=red"):
        with pytest.raises(InvalidInput) as raised:
            read_filter(written, "b")
        assert raised.value.param == "b"


def test_a_moment_is_in_utc_unless_it_says_otherwise() -> None:
    noon = datetime(2026, 1, 31, 12, tzinfo=UTC)
    assert read_moment("2026-01-31", "since") == noon.replace(hour=0)
    assert [read_moment(text, "since") for text in ("2026-01-31T12:00Z", "2026-01-31T13:00+01:00")] == [noon, noon]
    assert read_moment(None, "since") is None
    for written in ("yesterday", "2026-13-01", "0001-01-01T00:00+14:00"):
        with pytest.raises(InvalidInput) as raised:
            read_moment(written, "until")
        assert raised.value.param == "until"
