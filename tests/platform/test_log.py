"""The contents and form of logs."""

from __future__ import annotations

import io
import json
import logging
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from datetime import datetime
from typing import Any

import pytest
import structlog

from ponder import log
from ponder.cli import exit_code
from ponder.cli.main import run
from ponder.errors import InvalidInput, Unreachable

PROMPT = "How many roads must a man walk down?"


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def _untouched(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Restores logging and Python's hooks after the test."""
    logging.captureWarnings(False)  # as another test in this process may have left it
    root = logging.getLogger()
    handlers, level = root.handlers, root.level
    for name in ("excepthook", "unraisablehook"):
        monkeypatch.setattr(sys, name, getattr(sys, name))
    monkeypatch.setattr(threading, "excepthook", threading.excepthook)
    yield
    root.handlers, root.level = handlers, level
    for name in log.SAMPLED:
        logging.getLogger(name).filters.clear()
    logging.captureWarnings(False)
    structlog.reset_defaults()


@pytest.fixture
def lines(_untouched: None, monkeypatch: pytest.MonkeyPatch) -> Callable[[], list[dict[str, Any]]]:
    """Returns what the service `test` of an incarnation logs, after checking that each line has the common fields."""
    monkeypatch.setattr(sys, "stderr", said := io.StringIO())
    log.configure("test", "info", incarnation="inc_1", batch=None)

    def read() -> list[dict[str, Any]]:
        found = [json.loads(line) for line in said.getvalue().splitlines()]
        for line in found:
            assert list(line)[:4] == ["time", "level", "service", "event"]
            assert datetime.fromisoformat(line["time"]).utcoffset() is not None
            assert (line["service"], line["incarnation"]) == ("test", "inc_1")
            assert "batch" not in line
        return found

    return read


def test_ours_and_what_libraries_log_have_the_same_fields(lines: Callable[[], list[dict[str, Any]]]) -> None:
    structlog.get_logger("ponder.a").info("shard_taken", shard=7)
    logging.getLogger("celery.b").warning("lost %s\nand %d more", "one", 2)
    warnings.warn("old", stacklevel=1)
    ours, theirs, warning = lines()
    assert (ours["event"], ours["level"], ours["logger"], ours["shard"]) == ("shard_taken", "info", "ponder.a", 7)
    assert (theirs["event"], theirs["level"], theirs["logger"]) == ("lost one\nand 2 more", "warning", "celery.b")
    assert (warning["level"], warning["logger"]) == ("warning", "py.warnings")
    assert "old" in warning["event"]


def _break(error: Exception, by: Exception | None = None) -> Exception:
    try:
        raise error from by
    except type(error) as raised:
        return raised


@pytest.mark.parametrize("of", [structlog.get_logger, logging.getLogger], ids=["ours", "a library's"])
def test_an_exception_is_one_field_with_its_places_and_causes_and_without_prompts(
    lines: Callable[[], list[dict[str, Any]]], of: Callable[[str], Any]
) -> None:
    of("a").error("it broke", exc_info=_break(ValueError(PROMPT), by=_break(Unreachable("Redis does not answer"))))
    [line] = lines()
    exception = line["exception"]
    assert (exception["type"], exception["message"]) == ("ValueError", None)
    assert all(place.startswith("tests/platform/test_log.py:") for place in exception["places"])
    assert (exception["cause"]["type"], exception["cause"]["message"]) == ("Unreachable", "Redis does not answer")
    assert exception["cause"]["cause"] is None
    assert PROMPT not in json.dumps(line)


def test_an_uncaught_exception_is_a_line_of_the_log(lines: Callable[[], list[dict[str, Any]]]) -> None:
    def fail() -> None:
        raise ValueError(PROMPT)

    thread = threading.Thread(target=fail, name="heartbeat")
    thread.start()
    thread.join()
    sys.excepthook(ValueError, _break(ValueError(PROMPT)), None)
    in_thread, in_main = lines()
    assert (in_thread["event"], in_thread["thread"], in_main["event"]) == ("uncaught", "heartbeat", "uncaught")
    assert {in_thread["level"], in_main["level"]} == {"critical"}
    assert {in_thread["exception"]["type"], in_main["exception"]["type"]} == {"ValueError"}


def test_no_password_of_a_url_is_logged(lines: Callable[[], list[dict[str, Any]]]) -> None:
    logging.getLogger("kombu").error("cannot connect to redis://:sesame@host:6379//")
    structlog.get_logger().error("lost", error="postgresql://ponder:sesame@host/ponder")
    assert [line.get("error", line["event"]) for line in lines()] == [
        "cannot connect to redis://…@host:6379//",
        "postgresql://…@host/ponder",
    ]


def test_the_error_that_ends_a_service_is_the_last_line_of_its_log(lines: Callable[[], list[dict[str, Any]]]) -> None:
    assert run(["submit", "/nowhere.jsonl"]) == exit_code.USAGE
    [line] = lines()
    assert (line["level"], line["event"]) == ("critical", "ended")
    assert "/nowhere.jsonl" in line["error"]


def test_an_unknown_level_is_refused_by_name() -> None:
    with pytest.raises(InvalidInput, match="'loud' is not a log level") as refused:
        log.configure("test", "loud")
    assert refused.value.param == "PONDER_LOG_LEVEL"


@pytest.mark.usefixtures("_untouched")
def test_a_terminal_gets_text_with_the_place_and_without_the_prompt_that_stood_there(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sys, "stderr", said := Terminal())
    log.configure("test", "info")
    structlog.get_logger("a").error("it_broke", exc_info=_break(KeyError(PROMPT)))
    assert "it_broke" in said.getvalue()
    assert "in _break" in said.getvalue()
    assert "KeyError" in said.getvalue()
    assert PROMPT not in said.getvalue()
    with pytest.raises(json.JSONDecodeError):
        json.loads(said.getvalue().splitlines()[0])


def test_lines_that_strangers_can_cause_are_sampled_and_the_log_says_so(
    lines: Callable[[], list[dict[str, Any]]],
) -> None:
    def complain() -> None:
        logging.getLogger("uvicorn.error").warning("Invalid HTTP request received.")

    for _ in range(1000):
        complain()
    logging.getLogger("uvicorn.error").warning("Another line of the same logger.")
    *complaints, left_out, another = lines()
    assert [line["event"] for line in complaints] == ["Invalid HTTP request received."] * 20
    assert (left_out["event"], left_out["level"], left_out["for_s"]) == ("lines_left_out", "warning", 60)
    assert left_out["like"].startswith("test_log:")
    assert another["event"] == "Another line of the same logger."


def test_lines_left_out_are_logged_again_a_minute_later(
    lines: Callable[[], list[dict[str, Any]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    for minute in range(3):
        monkeypatch.setattr("time.time", lambda now=1.8e9 + 60 * minute: now)
        monkeypatch.setattr("time.time_ns", lambda now=1.8e9 + 60 * minute: int(now * 1e9))
        for _ in range(50):
            logging.getLogger("asyncio").error("socket.accept() out of system resource")
    assert len(lines()) == 3 * 21
