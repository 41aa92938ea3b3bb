"""Text from a file or a server cannot control a terminal."""

from __future__ import annotations

import io
import os
import pty
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.text import Text

from ponder.cli.console import Column, err, print_json, print_rows
from ponder.cli.terminal import CONTROL, harmless, harmless_streams

HOSTILE = "\x1b]0;owned\x07 \x9b2J \u202eevil"
PROGRAM = f"""
import sys, click, json
from rich.text import Text
from ponder.cli import main
from ponder.cli.console import out, err, print_json, print_rows, Column

@click.command()
def hostile():
    text = {HOSTILE!r}
    click.echo(text); click.echo(text, err=True); print(text)
    out().print(text, style="red"); err().print(Text(text))
    print_rows([{{"a": text}}], [Column("a", lambda row: row["a"])])
    print_json({{"a": text}})
    raise click.UsageError(text)

main.cli.add_command(hostile)
main.cli.get_command = lambda ctx, name: hostile
sys.exit(main.run(["hostile"]))
"""


def on_a_terminal(program: str) -> str:
    """Returns what a program writes to a terminal."""
    leader, follower = pty.openpty()
    environment = os.environ | {"TERM": "xterm-256color"}
    with subprocess.Popen(
        [sys.executable, "-c", program], stdout=follower, stderr=follower, env=environment
    ) as process:
        os.close(follower)
        written = b""
        try:
            while piece := os.read(leader, 65536):
                written += piece
        except OSError:  # how Linux says that the program has closed the terminal
            pass
        assert process.wait() == 2
    os.close(leader)
    return written.decode()


def test_on_a_terminal_only_colours_of_our_own_are_written() -> None:
    written = on_a_terminal(PROGRAM)
    assert written.count("owned") == 8
    assert "\x1b[31m" in written  # our own red
    assert not any(hostile in written for hostile in ("\x1b]0", "\x07", "\x9b", "\u202e"))


@given(st.text())
def test_text_without_control_characters_stays_as_it_is(text: str) -> None:
    said = harmless(text)
    assert len(said) == len(text)
    assert CONTROL.search(said) is None
    assert said == text or CONTROL.search(text)


def test_json_for_programs_is_exact(capsys: pytest.CaptureFixture[str]) -> None:
    import json

    with harmless_streams():
        print_json({"a": HOSTILE})
    printed = capsys.readouterr().out
    assert json.loads(printed) == {"a": HOSTILE}
    assert CONTROL.search(printed) is None


def test_tables_and_consoles_in_a_pipe_are_harmless_too(capsys: pytest.CaptureFixture[str]) -> None:
    with harmless_streams():
        print_rows([{"a": HOSTILE}], [Column("a", lambda row: Text(row["a"]))])
        err().print(HOSTILE)
    said = capsys.readouterr()
    assert CONTROL.search(said.out + said.err) is None
    assert said.out.startswith("a\n\ufffd]0;owned")


def test_the_streams_are_given_back() -> None:
    before = sys.stdout, sys.stderr
    with pytest.raises(io.UnsupportedOperation), harmless_streams():
        raise io.UnsupportedOperation
    assert (sys.stdout, sys.stderr) == before
