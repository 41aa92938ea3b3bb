from __future__ import annotations

import subprocess
import sys

import click
import pytest

from ponder.cli import exit_code
from ponder.cli.lazy_group import Lazy, LazyGroup
from ponder.cli.main import SECTIONS, cli, run
from ponder.errors import SetupError


def test_help_names_every_command_without_loading_what_commands_need() -> None:
    program = "import sys; from ponder.cli.main import run; run(['--help']); print(*sys.modules, file=sys.stderr)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert not {"httpx2", "pydantic", "rich", "sqlalchemy", "torch"} & set(done.stderr.split())
    assert all(name in done.stdout for commands in SECTIONS.values() for name in commands)


@pytest.mark.parametrize("name", [name for commands in SECTIONS.values() for name in commands])
def test_every_command_of_the_overview_exists_and_explains_itself(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run([name, "--help"]) == exit_code.SETTLED
    assert "Usage: ponder" in capsys.readouterr().out


def test_a_wrong_command_is_wrong_usage(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["rum"]) == exit_code.USAGE
    assert "No such command 'rum'" in capsys.readouterr().err


def test_a_missing_module_says_which_extra_brings_it() -> None:
    group = LazyGroup(name="g", sections={"s": {"c": Lazy("summary", "ponder_absent.module:command")}})
    with pytest.raises(ModuleNotFoundError):
        group.get_command(click.Context(group), "c")  # a module of our own that is missing is our own bug
    group = LazyGroup(name="g", sections={"s": {"nowhere": Lazy("summary", extra="worker")}})
    with pytest.raises(SetupError, match=r"pip install 'ponder\[worker\]'"):
        group.get_command(click.Context(group, info_name="ponder"), "nowhere")


def test_no_key_and_no_stack_is_one_message(
    monkeypatch: pytest.MonkeyPatch, tmp_path: object, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PONDER_HOME", str(tmp_path))
    monkeypatch.delenv("PONDER_API_KEY", raising=False)
    assert run(["batches"]) == exit_code.FAILED
    error = capsys.readouterr().err
    assert "ponder up" in error
    assert error.count("\n") == 1


def test_the_overview_lists_every_command() -> None:
    assert cli.list_commands(click.Context(cli)) == [name for commands in SECTIONS.values() for name in commands]
