"""The options with which the workers of a stack are started."""

from __future__ import annotations

import json
import shlex
from dataclasses import replace
from pathlib import Path

import pytest

from ponder.embedded import worker as module
from ponder.embedded.plan import ModelPlan, Plan
from ponder.embedded.worker import WorkerOptions


def plan(home: Path, num_workers: int, options: WorkerOptions) -> Plan:
    return Plan(
        home=str(home),
        host="127.0.0.1",
        port=1,
        models=(ModelPlan("m", "/m", num_workers=num_workers),),
        machine="cpu",
        market="spot",
        options=options,
    )


def command_lines(of: Plan) -> list[str]:
    crossed = Plan.parse(json.dumps(of.document()))
    assert crossed == of
    services = crossed.services("postgresql://", "redis://")
    return [shlex.join(service.arguments) for service in services if service.name.startswith("worker")]


def test_every_option_reaches_the_worker(tmp_path: Path) -> None:
    options = WorkerOptions(
        "cpu",
        "bfloat16",
        "fp8",
        64,
        3,
        "box",
        True,
        9100,
        "vllm",
        "own",
        ("quantization=fp8", "seed=1"),
        0.7,
        512,
        True,
        True,
    )
    (line,) = command_lines(plan(tmp_path, 1, options))
    assert line.endswith(
        "--device cpu --dtype bfloat16 --kv-dtype fp8 --max-sequences 64 --threads 3 --worker-name box --allow-code "
        "--metrics-port 9100 --engine vllm --reward-engine own --engine-arg quantization=fp8 --engine-arg seed=1 "
        "--memory-split 0.7 --step-tokens 512 --no-prefix-caching --no-speculation"
    )


def test_a_worker_alone_takes_all_cores(tmp_path: Path) -> None:
    (line,) = command_lines(plan(tmp_path, 1, WorkerOptions()))
    assert "--threads" not in line


@pytest.mark.parametrize(("cores", "num_workers", "share"), [(8, 2, 4), (8, 3, 2), (2, 4, 1)])
def test_several_workers_share_the_cores_of_the_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cores: int, num_workers: int, share: int
) -> None:
    monkeypatch.setattr(module, "num_cores", lambda: cores)
    lines = command_lines(plan(tmp_path, num_workers, WorkerOptions()))
    assert len(lines) == num_workers
    assert all(f"--threads {share}" in line for line in lines)


def test_several_workers_have_names_and_ports_of_their_own(tmp_path: Path) -> None:
    options = replace(WorkerOptions(), worker_name="box", metrics_port=9100, threads=5)
    first, second = command_lines(plan(tmp_path, 2, options))
    assert "--threads 5 --worker-name box-1 --metrics-port 9100" in first
    assert "--threads 5 --worker-name box-2 --metrics-port 9101" in second


def test_each_model_has_workers_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "num_cores", lambda: 6)
    stack = replace(
        plan(tmp_path, 1, WorkerOptions()),
        models=(ModelPlan("small", "/s", "/r", num_workers=2), ModelPlan("large", "/l")),
    )
    lines = [line.partition("worker --model ")[2] for line in command_lines(stack)]
    assert [line.partition(" --device")[0] for line in lines] == [
        *["/s --reward-model /r --name small --machine cpu --market spot"] * 2,
        "/l --name large --machine cpu --market spot",
    ]
    assert all("--threads 2 " in line for line in lines)
