from __future__ import annotations

import json

from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import Engine, text

from ponder.store.document import dumps

_text = st.text(st.characters(exclude_categories=()))
_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**60), 2**60) | st.floats() | _text,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(_text, inner, max_size=4),
    max_leaves=12,
)


def test_postgres_accepts_any_text_of_a_model(engine: Engine) -> None:
    with engine.connect() as connection:

        @given(value=_values)
        def takes(value: object) -> None:
            document = connection.execute(text("SELECT CAST(:it AS jsonb)"), {"it": dumps(value)}).scalar_one()
            assert json.loads(dumps(document)) == document

        takes()


@given(value=st.recursive(st.integers() | st.text("aé\\u0\"'日𝄞"), st.lists, max_leaves=8))
def test_ordinary_values_stay_as_they_are(value: object) -> None:
    assert json.loads(dumps(value)) == value
