"""The programs in `examples/`, run against a stack of this machine as their README says."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

pytestmark = [pytest.mark.system, pytest.mark.timeout(240)]

EXAMPLES = Path(__file__).parents[2] / "examples"
Example = Callable[..., str]


@pytest.fixture(scope="module")
def example(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Example]:
    """Runs a program with the environment that `ponder env` prints, and returns what it writes."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("PONDER_", "OPENAI_"))}
    environment |= {"PONDER_HOME": str(tmp_path_factory.mktemp("home")), "PONDER_PORT": str(port)}

    def run(*program: str) -> str:
        done = subprocess.run(
            [sys.executable, *program], capture_output=True, text=True, env=environment, timeout=120, check=False
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def ponder(*arguments: str) -> str:
        return run("-m", "ponder.cli", *arguments)

    ponder("up")
    try:
        environment |= dict(re.findall(r"export (\w+)=(\S+)", ponder("env")))
        yield lambda name, *arguments: run(str(EXAMPLES / name), *arguments)
    finally:
        ponder("down")


def test_a_batch_of_the_openai_package_comes_back_with_verdicts_and_costs(example: Example) -> None:
    first, *lines = example("openai_batch.py").splitlines()
    assert "is completed" in first
    assert [line.partition(":")[0] for line in lines] == ["problem-1", "problem-2", "problem-3"]
    for line in lines:
        assert re.search(r"\((passed|failed)\), 0\.0000\d+ dollars", line)


def test_a_data_set_counts_every_row_and_names_the_one_that_makes_no_request(example: Example, tmp_path: Path) -> None:
    rows = tmp_path / "rows.jsonl"
    rows.write_text('{"q": "Compute 27 - 13.", "a": 14}\n{"q": "Compute 3 * 33."}\n{"q": "Compute 3 * 33.", "a": 98}\n')
    shown = example("data_set.py", str(rows), "q", "a")
    assert "row-2: line 2: KeyError: 'a'" in shown
    assert "row-3: answered 99, failed" in shown
    assert "1 of 3 rows passed" in shown


def test_a_beam_search_is_printed_as_a_tree_with_its_chosen_path(example: Example) -> None:
    *tree, answer = example("beam_search.py").splitlines()
    chosen = [line for line in tree if line.startswith("*")]
    assert "Answer:" in chosen[-1]
    assert any(line.startswith("x") for line in tree)
    assert re.match(r"answer \d+ \((passed|failed)\), \d+ tokens in \d+ steps", answer)


def test_a_search_tries_again_until_its_verifier_passes_or_its_rounds_are_over(example: Example) -> None:
    lines = example("verifier_rounds.py").splitlines()
    assert len(lines) == 4
    num_rounds = [int(re.findall(r"after (\d+) round", line)[0]) for line in lines]
    assert all("(passed)" in line or rounds > 1 for line, rounds in zip(lines, num_rounds, strict=True))
    assert max(num_rounds) > 1


def test_the_cost_report_has_a_row_for_each_strategy_that_was_run(example: Example) -> None:
    example("openai_batch.py")
    head, *rows = example("cost_report.py").splitlines()
    assert head.split()[:3] == ["strategy", "tasks", "passed"]
    assert "best_of_n" in [row.split()[0] for row in rows]


def test_the_engine_alone_answers(example: Example) -> None:
    assert "Answer: 36" in example("engine_alone.py")
