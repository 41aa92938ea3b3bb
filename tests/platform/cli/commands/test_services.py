from __future__ import annotations

import shlex
from pathlib import Path

import pytest

from ponder.cli import exit_code
from ponder.cli.main import run


@pytest.mark.parametrize("address", ["127.0.0.1:9", "no-such-host.invalid:5432"])
def test_a_database_that_cannot_be_used_is_one_sentence_with_the_remedy(
    address: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PONDER_DATABASE_URL", f"postgresql://ponder:secret@{address}/ponder")
    assert run(["migrate"]) == exit_code.FAILED
    said = capsys.readouterr().err
    assert "PONDER_DATABASE_URL" in said
    assert "secret" not in said
    assert said.count("\n") == 1


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ("", "--max or --max-dollars-per-hour"),
        ("--max 2 --min 3 --model m", "--max 2 is below --min 3"),
        ("--max-dollars-per-hour 1e", "not an amount of dollars"),
        ("--max 2 --machine h200", "MACHINE:on_demand or MACHINE:spot"),
        ("--max 2 --min 1", "--min needs --model"),
        ("--max 2 --machine cpu:spot -- --model m", "needs exactly one --model"),
        ("--max 2 --model m -- --model m", "needs exactly one --machine: the machine it runs on"),
        ("--max 2 --model m --machine cpu:spot", "the options of `ponder worker` after --"),
        ("--max 2 --model m --machine cpu:spot -- --model m --market spot", "itself gives --market to its workers"),
        ("--max 2 --model m --machine cpu:spot -- --model m --name=x", "itself gives --name to its workers"),
        ("--max 2 --provider command --start-command true", "--start-command and --stop-command"),
        ("--max 2 --provider command --start-command '{x}' --stop-command true", "the placeholders"),
        (
            '--max 2 --provider command --start-command "true \'" --stop-command true',
            "--start-command true ': no closing",
        ),
        ("--max 2 --provider command --start-command true --stop-command ''", "--stop-command is empty"),
        ("--max 2 --provider command --start-command '{id.x}' --stop-command true", "the placeholders"),
        ("--max 2 --provider local --start-command true", "--start-command is for command, not for --provider local"),
        ("--max 2 --provider kubernetes --command-timeout-s 5", "--command-timeout-s is for command and skypilot"),
        ("--max 2 --provider skypilot --namespace x", "--namespace is for kubernetes"),
        ("--max 2 --provider kubernetes -- --model m", "-- is for local and skypilot, not for --provider kubernetes"),
        ("--max 2 --provider kubernetes", "service account"),
        ("--max 2 --provider kubernetes --deployment x-{foo}", "its placeholders are {model}, {machine} and {market}"),
        ("--max 2 --provider kubernetes --deployment x-{model.x}", "its placeholders are {model}"),
        ("--max 2 --provider kubernetes --deployment x-{model}-{market}", "would share x-one-on-demand"),
        (
            "--max 2 --provider kubernetes --model m --machine h100:spot --machine h200:spot --deployment x-{market}",
            "m on h100 (spot) and m on h200 (spot) would share x-spot",
        ),
        (
            "--max 2 --provider kubernetes --model m.1 --model m-1 --machine h100:spot",
            "m.1 on h100 (spot) and m-1 on h100 (spot) would share ponder-worker-m-1-h100-spot",
        ),
        ("--max 2 --provider kubernetes --model m --machine h100:spot --deployment x", "service account"),
    ],
)
def test_an_autoscaler_says_which_option_is_missing_before_it_starts(
    options: str, said: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setenv("PONDER_HOME", str(tmp_path))
    monkeypatch.setenv("PONDER_DATABASE_URL", "postgresql://ponder@127.0.0.1:9/ponder")
    monkeypatch.setenv("PONDER_REDIS_URL", "redis://127.0.0.1:9")
    assert run(["autoscaler", *shlex.split(options)]) in (exit_code.USAGE, exit_code.FAILED)
    assert said in capsys.readouterr().err


def test_a_machine_without_a_price_is_refused_with_those_that_have_one(
    database_url: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setenv("PONDER_HOME", str(tmp_path))
    monkeypatch.setenv("PONDER_DATABASE_URL", database_url)
    monkeypatch.setenv("PONDER_REDIS_URL", "redis://127.0.0.1:9")
    scripts = ["--provider", "command", "--start-command", "true", "--stop-command", "true"]
    assert run(["autoscaler", "--max", "2", *scripts, "--machine", "h201:spot"]) == exit_code.USAGE
    said = capsys.readouterr().err
    assert "h201" in said
    assert "h200" in said
