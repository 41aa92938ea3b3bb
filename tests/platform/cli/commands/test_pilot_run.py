"""`ponder run --pilot`: the estimate, the question and the answers."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import click
import pytest

from ponder.api.routes import result_lines
from ponder.cli import exit_code

FIELDS = ("--model", "demo", "--prompt", "question", "--answer", "answer")


@pytest.fixture
def problems(tmp_path: Path) -> Path:
    file = tmp_path / "problems.jsonl"
    file.write_text("".join(json.dumps({"question": f"{n} + 4?", "answer": n + 4}) + "\n" for n in range(20)))
    return file


def _lines(file: Path) -> int:
    return len(file.read_text().splitlines())


def _batch(said: str) -> str:
    found = re.search(r"batch_\w+", said)
    assert found is not None
    return found[0]


def test_a_run_prints_the_estimate_of_its_pilot_and_goes_on(
    ponder: Any, worker: Any, problems: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out.jsonl"
    code, _, said = ponder("run", str(problems), *FIELDS, "--pilot", "5", "-o", str(out))
    assert code == exit_code.SETTLED
    assert "pilot: 5 of 20 jobs" in said
    assert re.search(r"direct cost: \$\S+ \(\$\S+ to \$\S+\)", said)
    assert "resting on 20 jobs: 5 settled of the same strategy and level" in said
    assert _lines(out) == 20


def test_without_a_terminal_a_run_that_must_be_confirmed_ends_and_says_how_to_answer(
    ponder: Any, worker: Any, problems: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out.jsonl"
    code, _, said = ponder("run", str(problems), *FIELDS, "--pilot", "5", "--confirm", "-o", str(out))
    assert code == exit_code.PILOT_WAITING
    batch = _batch(said)
    assert "waits after its pilot: 5 of 20 jobs completed" in said
    assert f"`ponder confirm {batch}` runs the rest" in said
    assert ponder("watch", batch)[0] == exit_code.PILOT_WAITING
    monkeypatch.setattr(result_lines, "_HEARTBEAT_S", 0.2)
    code, printed, said = ponder("results", batch, "--follow")
    assert (code, len(printed.splitlines())) == (exit_code.PILOT_WAITING, 5)
    assert f"`ponder confirm {batch}` runs the rest" in said
    shown = ponder("show", batch)[1]
    assert re.search(r"pilot +5 of 5 jobs, waiting", shown)
    assert f"`ponder confirm {batch}` runs the rest" in shown

    for _ in range(2):
        assert "waits: the pilot's estimate" in ponder("resume", batch)[2], "the end of a pause is no yes"
    assert ponder("confirm", batch) == (exit_code.SETTLED, "", f"{batch} continues\n")
    assert ponder("watch", batch)[0] == exit_code.SETTLED
    assert ponder("results", batch, "--follow", "-o", str(out))[0] == exit_code.SETTLED
    assert _lines(out) == 20


@pytest.mark.parametrize("says_yes", [True, False])
def test_on_a_terminal_it_asks(
    ponder: Any, worker: Any, problems: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, says_yes: bool
) -> None:
    asked: list[str] = []

    def answer(question: str, **_: Any) -> bool:
        asked.append(question)
        return says_yes

    monkeypatch.setattr(click, "confirm", answer)
    monkeypatch.setattr("ponder.cli.commands.watch._is_terminal", lambda: True)
    out = tmp_path / "out.jsonl"
    code, _, said = ponder("run", str(problems), *FIELDS, "--pilot", "5", "--confirm", "-o", str(out))
    assert code == (exit_code.SETTLED if says_yes else exit_code.PILOT_WAITING)
    assert asked == ["Run the rest?"]
    assert "the pilot's estimate of the whole batch is $" in said


def test_confirm_without_a_pilot_is_a_mistake(ponder: Any, problems: Path) -> None:
    code, _, said = ponder("run", str(problems), *FIELDS, "--confirm")
    assert code == exit_code.USAGE
    assert "--confirm belongs to a --pilot" in said
