from __future__ import annotations

import time
from typing import Any

import httpx2
import pytest
from sqlalchemy import Engine

from ponder.cli import exit_code
from ponder.cli.main import run
from ponder.client import Client
from ponder.fleet.decision import Action, Decision
from ponder.fleet.fleet_log import log_decision, prune_log
from ponder.fleet.provider import Pool

POOL = Pool("demo", "h200", "spot")


@pytest.fixture
def told(engine: Engine) -> None:
    with engine.begin() as connection:
        for number in range(5):
            log_decision(connection, Decision(Action.START, POOL, f"reason {number}", f"fleet-{number}"))


@pytest.fixture
def client(base_url: str, operator_key: str) -> Client:
    return Client.of(base_url, operator_key)


def test_the_newest_decisions_come_first_and_pages_go_on_before_an_id(
    told: None, base_url: str, operator_key: str
) -> None:
    headers = {"Authorization": f"Bearer {operator_key}"}
    first = httpx2.get(f"{base_url}/v1/fleet/log?limit=3", headers=headers).json()
    assert [one["reason"] for one in first["data"]] == ["reason 4", "reason 3", "reason 2"]
    assert first["has_more"]
    assert first["data"][0] | {"at": 0} == {
        "id": 5, "object": "fleet_decision", "at": 0, "action": "start", "model": "demo", "machine": "h200",
        "market": "spot", "worker": "fleet-4", "reason": "reason 4",
    }  # fmt: skip
    before = first["data"][-1]["id"]
    rest = httpx2.get(f"{base_url}/v1/fleet/log?before={before}", headers=headers).json()
    assert [one["reason"] for one in rest["data"]] == ["reason 1", "reason 0"]
    assert not rest["has_more"]
    assert httpx2.get(f"{base_url}/v1/fleet/log?since=nan", headers=headers).status_code == 400


def test_since_leaves_out_what_is_older_and_old_entries_are_deleted(
    told: None, world: Any, engine: Engine, client: Client
) -> None:
    world.sql("UPDATE fleet_decisions SET at = at - interval '91 days' WHERE id <= 2")
    assert len(client.fleet_log(limit=10, since=time.time() - 3600)) == 3
    with engine.begin() as connection:
        prune_log(connection)
    assert len(client.fleet_log(limit=10)) == 3


def test_the_command_tells_the_story_in_its_order(
    told: None,
    base_url: str,
    operator_key: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("PONDER_BASE_URL", base_url)
    monkeypatch.setenv("PONDER_API_KEY", operator_key)
    assert run(["fleet", "log", "--limit", "2", "--since", "1h"]) == exit_code.SETTLED
    lines = [line.split("\t") for line in capsys.readouterr().out.splitlines()]
    assert lines[0] == ["when", "what", "model", "machine", "market", "worker", "why"]
    assert [line[1:] for line in lines[1:]] == [
        ["start", "demo", "h200", "spot", f"fleet-{number}", f"reason {number}"] for number in (3, 4)
    ]
    assert run(["fleet", "log", "--json"]) == exit_code.SETTLED
    assert '"reason": "reason 0"' in capsys.readouterr().out
