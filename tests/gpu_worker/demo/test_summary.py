from __future__ import annotations

import io
import re
from typing import Any

import pytest
from rich.console import Console

from ponder_worker.demo.summary import ALL, cells, strategy_table


def row(strategy: str, level: str, passed: int, nanodollars: int) -> dict[str, Any]:
    return {
        "strategy": strategy,
        "level": level,
        "settled": 10,
        "passed": passed,
        "tokens_per_job": 20.0,
        "loaded_nanodollars": nanodollars,
        "direct_nanodollars": nanodollars,
    }


ROWS = [
    row("direct", "1", 9, 9_000),
    row("direct", "2", 2, 9_000),
    row("beam_search", "1", 10, 40_000),
    row("beam_search", "2", 8, 32_000),
]


def drawn(**console: Any) -> str:
    output = io.StringIO()
    Console(file=output, width=90, **console).print(strategy_table(cells(ROWS), ["direct", "beam_search"]))
    return output.getvalue()


def test_all_levels_together_are_their_sum() -> None:
    made = cells(ROWS)
    assert made["direct", ALL].num_passed == 11
    assert made["direct", ALL].cost_per_success == pytest.approx(18_000 / 11)
    assert made["direct", ALL].tokens_per_task == 20


def test_every_figure_stands_under_its_level() -> None:
    lines = [line.split() for line in drawn().splitlines()]
    assert lines[0] == ["level", "1", "level", "2", "all"]
    assert ["direct", "90%", "20%", "55%"] in lines
    assert ["beam_search", "100%", "80%", "90%"] in lines
    assert ["60–98", "%", "6–51", "%", "34–74", "%"] in lines
    assert ["direct", "1.00", "4.50", "1.64"] in lines  # millionths of a dollar a success
    assert "Cost per successful task, in millionths of a dollar" in drawn()


def test_the_best_of_a_column_is_highlighted_and_a_pipe_has_no_colours() -> None:
    coloured = drawn(force_terminal=True, color_system="standard")
    assert re.search(r"\x1b\[1;32m +100%", coloured)
    assert re.search(r"\x1b\[1;32m +90%", coloured)  # of all levels
    assert re.search(r"\x1b\[1;32m +1.00", coloured)
    assert "\x1b" not in drawn()


def test_an_unsolved_level_has_no_cost_per_success() -> None:
    made = cells([row("direct", "1", 0, 5)])
    assert made["direct", "1"].cost_per_success is None
    output = io.StringIO()
    Console(file=output, width=90).print(strategy_table(made, ["direct", "beam_search"]))
    assert "–" in output.getvalue()
