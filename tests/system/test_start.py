"""The messages of a worker that cannot begin."""

from __future__ import annotations

from pathlib import Path

import pytest
from fleet import Fleet, until

pytestmark = [pytest.mark.system, pytest.mark.timeout(120)]


def test_an_unknown_machine_is_refused_with_the_names_of_the_known_ones(fleet: Fleet) -> None:
    worker = fleet.start_worker("--machine", "toaster")
    assert worker.wait(60) != 0
    said = fleet.log_of(worker)
    assert "toaster" in said
    assert "h200" in said
    assert "Traceback" not in said


def test_a_folder_without_a_model_is_named_and_costs_only_its_loading(fleet: Fleet, tmp_path: Path) -> None:
    worker = fleet.start_worker("--model", str(tmp_path))
    assert worker.wait(60) == 1
    assert f"{tmp_path}: no config.json" in fleet.log_of(worker)
    assert fleet.scalar("SELECT end_reason FROM incarnations") == "loading failed"
    fleet.check_ledgers()


def test_a_database_that_is_not_there_is_one_sentence_with_the_remedy(fleet: Fleet) -> None:
    fleet.environment["PONDER_DATABASE_URL"] = "postgresql://nobody@127.0.0.1:9/none"
    worker = fleet.start_worker()
    assert worker.wait(60) == 1
    said = fleet.log_of(worker)
    assert "is it running" in said
    assert "Traceback" not in said


def test_a_worker_shows_that_it_is_alive_once_it_takes_jobs(fleet: Fleet, tmp_path: Path) -> None:
    alive = tmp_path / "alive"
    fleet.environment["PONDER_ALIVE_FILE"] = str(alive)
    fleet.start_worker("--model", str(tmp_path / "no-such-model")).wait(60)
    assert not alive.exists()
    fleet.start_workers(1)
    until(alive.exists, 10)
    shown = alive.stat().st_mtime_ns
    until(lambda: alive.stat().st_mtime_ns > shown, 10)
