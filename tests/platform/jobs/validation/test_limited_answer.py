"""An error that a process of its own refuses with is the same error here."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from ponder.errors import Conflict, InvalidInput, InvalidLine, LimitReached, NotFound, PonderError, Unreachable
from ponder.jobs.validation.limited_answer import answering, ask

_ROOT = str(Path(__file__).parents[4])
"""The folder from which the other process imports this module."""

ERRORS: dict[str, PonderError] = {
    "invalid": InvalidInput("it is wrong", param="a.b", code="too_much"),
    "line": InvalidLine("it is wrong", line=3, param="a.b", code="too_much"),
    "missing": NotFound("it is not there", param="file"),
    "conflict": Conflict("it is there already"),
    "limit": LimitReached("it is full", code="storage_limit_exceeded", retry_after_s=60, is_passing=False),
}


def _raising(name: str) -> Callable[[], dict[str, object]]:
    def work() -> dict[str, object]:
        raise ERRORS.get(name) or RuntimeError("out of order")

    return work


def answer_with_an_error(request: bytes) -> bytes:
    return answering(_raising(json.loads(request)["name"]))


@pytest.mark.parametrize("name", ERRORS)
def test_an_error_keeps_its_kind_its_words_and_its_fields(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", _ROOT)
    made = ERRORS[name]
    with pytest.raises(PonderError) as caught:
        ask(answer_with_an_error, {"name": name}, patience_s=60, what="the work")
    assert isinstance(made, type(caught.value))
    assert str(caught.value) == str(made)
    assert vars(caught.value) == {field: getattr(made, field) for field in vars(caught.value)}


def test_another_failure_is_told_as_one_that_may_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", _ROOT)
    with pytest.raises(Unreachable, match="the work broke off"):
        ask(answer_with_an_error, {"name": "another"}, patience_s=60, what="the work")
