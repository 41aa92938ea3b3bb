"""Suggested commands work where they are suggested."""

from __future__ import annotations

import json
import shlex
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from ponder import remedy


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> SimpleNamespace:
    """A ponder that was installed from a checkout into its .venv, called from within the checkout."""
    place = SimpleNamespace(checkout=tmp_path / "ponder", direct_url={"url": (tmp_path / "ponder").as_uri()})
    pip = place.checkout / ".venv" / "bin" / "pip"
    pip.parent.mkdir(parents=True)
    pip.touch()
    monkeypatch.chdir(place.checkout)
    monkeypatch.setattr(sys, "prefix", str(place.checkout / ".venv"))
    monkeypatch.setattr(
        remedy,
        "distribution",
        lambda name: SimpleNamespace(read_text=lambda file: json.dumps(place.direct_url) if place.direct_url else None),
    )
    return place


def test_in_a_checkout_the_advice_is_its_own_pip_and_the_checkout(installed: SimpleNamespace) -> None:
    assert remedy.pip_install("pyarrow") == ".venv/bin/pip install pyarrow"
    assert remedy.pip_install("ponder[worker]") == ".venv/bin/pip install -e '.[worker]'"


def test_elsewhere_the_advice_names_whole_paths(
    installed: SimpleNamespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "other").mkdir()
    monkeypatch.chdir(tmp_path / "other")
    pip, install, editable, folder = shlex.split(remedy.pip_install("ponder[demo]"))
    assert (Path(pip).is_file(), install, editable) == (True, "install", "-e")
    assert folder == f"{installed.checkout}[demo]"


def test_an_installed_package_is_asked_from_the_index(installed: SimpleNamespace) -> None:
    installed.direct_url = None
    assert remedy.pip_install("ponder[worker]") == ".venv/bin/pip install 'ponder[worker]'"
