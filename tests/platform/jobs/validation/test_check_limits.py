"""Limits on the processor time of a batch's lines."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest

from ponder.errors import InvalidInput
from ponder.jobs.validation import limited_process
from ponder.jobs.validation.check_limits import CheckLimits, LineClock
from ponder.jobs.validation.validate import validate


@pytest.fixture(autouse=True)
def _alarm() -> Any:
    """Installs the signal handler that `serve` installs in its process."""
    import signal

    before = signal.signal(signal.SIGPROF, limited_process._ring)
    yield
    signal.signal(signal.SIGPROF, before)


def _work(processor_s: float) -> None:
    until = time.process_time() + processor_s
    while time.process_time() < until:
        pass


def test_a_line_beyond_its_limit_is_refused_and_a_cheap_one_is_not() -> None:
    clock = LineClock(CheckLimits(line_s=0.1))
    with pytest.raises(InvalidInput, match=r"0\.1 s .*PONDER_MAX_CHECK_S"), clock.line():
        _work(5)
    with clock.line():
        pass


def test_when_a_batch_has_had_its_time_only_cheap_lines_are_taken() -> None:
    clock = LineClock(CheckLimits(line_s=0.2, batch_s=0.3))
    for _ in range(2):
        with pytest.raises(InvalidInput), clock.line():
            _work(5)
    with pytest.raises(InvalidInput, match=r"more than 0\.3 s .*PONDER_MAX_BATCH_CHECK_S"), clock.line():
        _work(0.15)
    for _ in range(100):
        with clock.line():
            pass


def test_waiting_costs_nothing() -> None:
    with LineClock(CheckLimits(line_s=0.1)).line():
        time.sleep(0.3)


def test_a_costly_line_is_refused_and_stops_no_other(desk: Any) -> None:
    costly = "(?i)" + "[\x01-\U0010fffe]" * 300
    lines = [
        desk.line("before"),
        desk.line("costly", ponder={"verifier": {"name": "regex", "pattern": costly}}),
        desk.line("after"),
    ]
    batch = desk.submit(desk.file(b"\n".join(json.dumps(line).encode() for line in lines)))
    validate(desk.engine, batch, line=LineClock(CheckLimits(line_s=0.2)).line)
    assert [job.custom_id for job in desk.jobs(batch)] == ["before", "after"]
    assert desk.rejected(batch) == {2: ("too_expensive", None, "costly")}
