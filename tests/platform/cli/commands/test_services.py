from __future__ import annotations

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
