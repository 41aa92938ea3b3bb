"""What a log may hold."""

from __future__ import annotations

import io
import logging
import sys
from collections.abc import Iterator

import pytest
import structlog

from ponder_worker import log


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def untouched_logging() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers, root.level
    yield
    root.handlers, root.level = handlers, level
    structlog.reset_defaults()


@pytest.mark.usefixtures("untouched_logging")
@pytest.mark.parametrize("stream", [io.StringIO, Terminal])
def test_an_error_is_told_with_its_place_and_without_the_prompt_that_stood_there(
    stream: type[io.StringIO], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stderr", said := stream())
    log.configure("info")

    def break_here(prompt: str) -> None:
        raise KeyError("choices")

    try:
        break_here("secret" * 2)
    except KeyError as error:
        structlog.get_logger("a").error("it_broke", exc_info=error)
    assert "break_here" in said.getvalue()
    assert "secretsecret" not in said.getvalue()
