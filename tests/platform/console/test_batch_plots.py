"""Plots of a batch: that a stretch of time that is not over makes no false rate."""

from __future__ import annotations

from typing import Any
from xml.etree import ElementTree

import pytest

from ponder.console.batch_plots import batch_plots

_NOTHING = {"passed": 0, "failed": 0, "unverified": 0}


def _throughput(status: str, settled: list[int], end_at: float) -> list[str]:
    """Returns the cells of the rates of a batch that began at 0, in stretches of 60 s."""
    own = {"direct_nanodollars": 0, "verdicts": _NOTHING, "budget": None}
    stretches = [_stretch(60 * number, jobs) for number, jobs in enumerate(settled)]
    history = {"seconds": 60, "begin_at": 0, "end_at": end_at, "data": stretches}
    root = ElementTree.fromstring(batch_plots({"status": status, "ponder": own}, history)[0])
    return ["".join(row[-1].itertext()) for row in root.find(".//tbody") or ()]


def _stretch(at: int, jobs: int) -> dict[str, Any]:
    amounts = {"completed": jobs, "failed": 0, "generated_tokens": jobs, "direct_nanodollars": 0}
    return {"at": at, "verdicts": _NOTHING, **amounts}


def test_the_stretch_that_is_not_over_is_left_out_while_the_batch_is_open() -> None:
    assert _throughput("in_progress", [60, 30, 20], 121) == ["60", "30"]
    assert _throughput("in_progress", [60, 30, 0], 179) == ["60", "30"]


def test_the_last_moment_of_an_ended_batch_counts_with_the_stretch_before() -> None:
    assert _throughput("completed", [60, 30, 31], 121) == ["60", "60"]


@pytest.mark.parametrize("status", ["in_progress", "completed"])
def test_long_stretches_and_a_first_one_have_their_own_rates(status: str) -> None:
    assert _throughput(status, [10], 30) == ["20"]
    assert _throughput("completed", [60, 30], 119) == ["60", "30.5"]
