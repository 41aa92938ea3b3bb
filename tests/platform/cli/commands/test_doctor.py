"""Findings of `ponder doctor` on machines in different states."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from ponder.cli.commands import doctor
from ponder.cli.main import run

Findings = dict[str, doctor.Finding]


@pytest.fixture
def examine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[[], tuple[int, Findings]]:
    """The exit code and the findings by subject, on a machine where ponder has never run."""
    monkeypatch.setenv("PONDER_HOME", str(tmp_path / "home"))
    for variable in ("PONDER_BASE_URL", "PONDER_API_KEY"):
        monkeypatch.delenv(variable, raising=False)

    def examine() -> tuple[int, Findings]:
        try:
            code = run(["doctor", "--format", "json"])
        except SystemExit as end:
            code = int(end.code or 0)
        found = [doctor.Finding(**fields) for fields in json.loads(capsys.readouterr().out)]
        return code, {finding.subject: finding for finding in found}

    return examine


def test_a_fresh_machine_on_which_nothing_is_up_misses_nothing(examine: Callable[[], tuple[int, Findings]]) -> None:
    code, findings = examine()
    assert code == 0
    assert findings["api"] == doctor.Finding("api", None, "nothing is running here", "`ponder up` starts it")


def test_a_server_that_was_named_needs_a_key(
    examine: Callable[[], tuple[int, Findings]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PONDER_BASE_URL", "http://127.0.0.1:9")
    code, findings = examine()
    assert code == 1
    assert "there is no API key" in findings["api"].said


@pytest.mark.parametrize(("build", "is_well"), [("2.13.0+cpu", None), ("2.13.0", True)])
def test_a_gpu_and_a_torch_that_cannot_use_it_is_said(
    build: str,
    is_well: bool | None,
    examine: Callable[[], tuple[int, Findings]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(doctor, "_has_nvidia_driver", lambda: True)
    monkeypatch.setattr(doctor, "version", lambda package: build)
    device = examine()[1]["device"]
    assert device.is_well is is_well
    assert ("PONDER_TORCH=cuda make up" in device.remedy) is (is_well is None)
