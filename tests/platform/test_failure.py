from __future__ import annotations

import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ValidationError
from sqlalchemy import Engine, text
from sqlalchemy.exc import DBAPIError

from ponder.errors import InvalidInput, Unreachable
from ponder.failure import brief

PROMPT = "How many roads must a man walk down"


class Number(BaseModel):
    value: int


def _raised_by_pydantic() -> Exception:
    with pytest.raises(ValidationError) as refused:
        Number.model_validate({"value": PROMPT})
    return refused.value


@pytest.mark.parametrize(
    "error",
    [
        ValueError(PROMPT),
        KeyError(PROMPT),
        RuntimeError({"M": PROMPT}),
        InvalidInput(f"{PROMPT} is no number"),
        json.JSONDecodeError("what", PROMPT, 0),
        _raised_by_pydantic(),
    ],
    ids=lambda error: type(error).__name__,
)
def test_an_error_that_may_quote_a_user_is_described_by_type_and_place(error: Exception) -> None:
    try:
        raise error
    except type(error) as raised:
        said = brief(raised)
    assert re.fullmatch(rf"{type(error).__name__}: at [\w/.-]+\.py:\d+", said)


def test_postgres_is_quoted_without_values(engine: Engine) -> None:
    with engine.connect() as connection, pytest.raises(DBAPIError) as refused:
        connection.execute(text("SELECT CAST(:prompt AS integer)"), {"prompt": PROMPT})
    assert brief(refused.value).endswith(": 22P02")
    with engine.connect() as connection, pytest.raises(DBAPIError) as refused:
        connection.execute(text("SELECT * FROM nothing"))
    assert 'relation "nothing" does not exist' in brief(refused.value)


@given(st.text(st.characters(codec="ascii", exclude_characters="/@ ", categories=["L", "N", "P"]), min_size=1))
def test_no_password_of_a_url_is_shown(password: str) -> None:
    said = brief(Unreachable(f"cannot connect to redis://user:{password}@host:6379/0 now"))
    assert said == "Unreachable: cannot connect to redis://…@host:6379/0 now"


def test_a_missing_module_and_a_refused_connection_are_described_in_full() -> None:
    assert brief(ModuleNotFoundError("No module named 'packaging'")).endswith("No module named 'packaging'")
    assert "refused" in brief(ConnectionRefusedError(111, "Connection refused"))
