from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from ponder.errors import InvalidInput
from ponder.fleet.provider import Order, Pool
from ponder.fleet.providers.scripts import Command, Scripts
from ponder.fleet.providers.skypilot import SkyPilot, start_command, stop_command, task
from ponder.fleet.sizing.gpu import recognise

ROOT = Path(__file__).parents[4]
KNOWN = ["a10", "a100", "a100-80gb", "a10g", "b200", "h100", "h200", "l4", "l40s", "mi300x", "t4", "v100", "v100-32gb"]


def provider(*machines: str, checkout: Path = ROOT) -> SkyPilot:
    offers = [(machine, "spot") for machine in machines]
    commands = Command(Scripts(start_command(Path("tasks")), stop_command()), offers=offers)
    return SkyPilot(["--model", "m"], commands, Path("tasks"), checkout)


def test_a_task_has_the_machine_and_the_market_of_the_plan_and_no_secret_of_its_own() -> None:
    order = Order("fleet-1", Pool("large", "h200", "spot"), 1)
    read = yaml.safe_load(task(order, ["--model", "Qwen/Qwen3 4B", "--name", "large"], Path("/src/a clone")))
    assert read["name"] == "fleet-1"
    assert read["resources"] == {"accelerators": "H200:1", "use_spot": True}
    assert read["secrets"] == {"PONDER_DATABASE_URL": None, "PONDER_REDIS_URL": None, "HF_TOKEN": ""}
    assert read["workdir"] == "/src/a clone"
    assert read["run"] == (
        "exec .venv/bin/ponder worker --model 'Qwen/Qwen3 4B' --name large --machine h200 --market spot"
        " --worker-name fleet-1\n"
    )


def test_a_machine_is_set_up_like_that_of_the_task_of_the_repository() -> None:
    shipped = yaml.safe_load((ROOT / "deploy/skypilot/worker.yaml").read_text())
    read = yaml.safe_load(task(Order("fleet-1", Pool("m", "h200", "spot"), 1), ["--model", "m"], ROOT))
    assert read["setup"] == shipped["setup"], "a package index could have somebody else's `ponder`"
    assert read["secrets"] == shipped["secrets"]


def test_a_machine_without_a_gpu_asks_for_cores() -> None:
    read = yaml.safe_load(task(Order("fleet-1", Pool("demo", "cpu", "on_demand"), 1), ["--model", "demo"], ROOT))
    assert read["resources"] == {"cpus": "4+", "use_spot": False}
    assert ".[worker]" in read["setup"]


def test_a_token_of_the_hub_is_passed_on_if_there_is_one() -> None:
    assert "HF_TOKEN" not in start_command(Path("tasks"))
    words = start_command(Path("tasks"), has_token=True)
    assert words[words.index("HF_TOKEN") - 1] == "--secret"


@pytest.mark.parametrize("machine", KNOWN)
def test_every_gpu_that_is_taken_is_one_that_is_known(machine: str) -> None:
    assert recognise(machine) is not None
    assert provider(machine).offers(machine, "spot")


@pytest.mark.parametrize("machine", ["aws-p5.48xlarge", "lambda-a100-80-gb-8", "H100", "", "my-machine"])
def test_a_machine_that_is_no_single_gpu_is_refused(machine: str) -> None:
    assert not provider().offers(machine, "spot")
    with pytest.raises(InvalidInput, match="is no GPU that SkyPilot knows: name one of a10, a100, ") as refusal:
        provider("h100", machine)
    assert refusal.value.param == "--machine"


def test_outside_a_clone_of_the_repository_there_is_nothing_to_set_up_machines_from(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="start the autoscaler in one"):
        provider(checkout=tmp_path)
