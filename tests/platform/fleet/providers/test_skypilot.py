from __future__ import annotations

import yaml

from ponder.fleet.provider import Order, Pool
from ponder.fleet.providers.skypilot import task


def test_a_task_has_the_machine_and_the_market_of_the_plan_and_no_secret_of_its_own() -> None:
    order = Order("fleet-1", Pool("large", "h200", "spot"), 1)
    read = yaml.safe_load(task(order, ["--model", "Qwen/Qwen3 4B", "--name", "large"]))
    assert read["name"] == "fleet-1"
    assert read["resources"] == {"accelerators": "H200:1", "use_spot": True}
    assert read["secrets"] == {"PONDER_DATABASE_URL": None, "PONDER_REDIS_URL": None}
    assert read["run"] == (
        "exec ponder worker --model 'Qwen/Qwen3 4B' --name large --machine h200 --market spot --worker-name fleet-1\n"
    )
    assert "ponder[gpu]==" in read["setup"]


def test_a_machine_without_a_gpu_asks_for_cores() -> None:
    read = yaml.safe_load(task(Order("fleet-1", Pool("demo", "cpu", "on_demand"), 1), ["--model", "demo"]))
    assert read["resources"] == {"cpus": "4+", "use_spot": False}
