"""`ponder up` passes options on to its workers. Nothing is started here."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from ponder.cli import exit_code
from ponder.cli.commands import stack
from ponder.cli.main import run
from ponder.embedded import launch
from ponder.embedded.home import Home
from ponder.embedded.plan import Autoscaling, Plan
from ponder.embedded.worker import WorkerOptions
from ponder_worker.main import worker


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[Plan]:
    """Collects the plans that would have been started."""
    plans: list[Plan] = []
    monkeypatch.setenv("PONDER_HOME", str(tmp_path))
    monkeypatch.setattr(launch, "start_in_background", lambda home, plan, on_phase: plans.append(plan))
    monkeypatch.setattr(stack, "_say_console", lambda home, *, is_opened: None)
    return plans


def test_up_passes_on_every_option_of_a_worker(started: list[Plan]) -> None:
    given = "--device cpu --dtype bfloat16 --kv-dtype fp8 --max-sequences 8 --threads 2 --worker-name box --allow-code"
    engine = "--engine vllm --reward-engine own --engine-arg seed=1 --engine-arg enforce_eager=true --memory-split 0.7"
    assert run(["up", *given.split(), "--metrics-port", "9100", *engine.split()]) == exit_code.SETTLED
    assert started[0].options == WorkerOptions(
        "cpu", "bfloat16", "fp8", 8, 2, "box", True, 9100, "vllm", "own", ("seed=1", "enforce_eager=true"), 0.7
    )


def test_up_passes_on_exactly_the_options_of_a_worker(started: list[Plan]) -> None:
    run(["up", "--threads", "2", "--allow-code"])
    arguments = ["--model", "m", "--machine", "cpu", "--market", "spot", *started[0].options.arguments()]
    context = worker.make_context("worker", arguments)
    assert (context.params["threads"], context.params["allow_code"]) == (2, True)


@pytest.mark.parametrize("plan", [{"models": [{"name": "qwen"}]}, {"name": "qwen"}])
def test_what_an_earlier_release_has_up_is_named_when_other_options_are_asked_for(
    started: list[Plan], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], plan: dict[str, Any]
) -> None:
    monkeypatch.setattr(Home, "running_pid", lambda home: 1)
    monkeypatch.setattr(Home, "record", lambda home: {"url": "u", "plan": plan})
    monkeypatch.setattr(launch, "wait_until_ready", lambda home: None)
    assert run(["up", "--threads", "2"]) == exit_code.FAILED
    assert "with other options and the model 'qwen'" in capsys.readouterr().err
    assert not started


@pytest.mark.parametrize("command", [["up"], ["worker", "--model", "m", "--machine", "cpu", "--market", "spot"]])
@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("--device", "gpu"),
        ("--dtype", "float8"),
        ("--kv-dtype", "int4"),
        ("--max-sequences", "0"),
        ("--threads", "x"),
        ("--engine", "sglang"),
        ("--memory-split", "1"),
    ],
)
def test_a_bad_value_is_refused_where_it_is_typed(
    started: list[Plan], capsys: pytest.CaptureFixture[str], command: list[str], option: str, value: str
) -> None:
    assert run([*command, option, value]) == exit_code.USAGE
    assert option in capsys.readouterr().err
    assert started == []


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        ([], exit_code.SETTLED),
        (["--open"], exit_code.SETTLED),
        (["--dtype", "bfloat16"], exit_code.SETTLED),
        (["--dtype", "float32"], exit_code.FAILED),
        (["--dtype", "bfloat16", "--workers", "3"], exit_code.FAILED),
    ],
)
def test_options_that_a_running_stack_was_not_started_with_are_refused(
    started: list[Plan],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    code: int,
) -> None:
    run(["up", "--dtype", "bfloat16"])
    record: dict[str, Any] = {"plan": json.loads(json.dumps(started[0].document())), "url": "http://it", "pid": 1}
    monkeypatch.setattr(Home, "running_pid", lambda home: 1)
    monkeypatch.setattr(Home, "record", lambda home: record | {"is_ready": True})
    capsys.readouterr()
    assert run(["up", *arguments]) == code
    said = capsys.readouterr().err
    assert ("`ponder down` stops it" if code else "already up") in said
    assert len(started) == 1


def test_up_plans_an_autoscaler_within_bounds(started: list[Plan], capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["up", "--autoscale", "--max", "3"]) == exit_code.SETTLED
    assert started[0].autoscaling == Autoscaling(0, 3)
    assert "0 to 3 workers as needed" in capsys.readouterr().err
    run(["up", "--autoscale", "--max", "3", "--min", "1"])
    assert started[1].autoscaling == Autoscaling(1, 3)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ("--autoscale", "--autoscale needs --max"),
        ("--max 2", "bounds of --autoscale"),
        ("--autoscale --max 2 --min 3", "--min is above --max"),
        ("--autoscale --max 2 --workers 2", "there is no --workers"),
        ("--autoscale --max 2 --metrics-port 9100", "there is no --metrics-port"),
    ],
)
def test_options_of_an_autoscaler_that_contradict_each_other_are_refused(
    started: list[Plan], capsys: pytest.CaptureFixture[str], options: str, said: str
) -> None:
    assert run(["up", *options.split()]) == exit_code.USAGE
    assert said in capsys.readouterr().err
    assert started == []
