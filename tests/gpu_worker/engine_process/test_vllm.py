"""The engine process with vLLM in it, as a worker runs it: every strategy, resuming, and its several deaths."""

from __future__ import annotations

import json
import os
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from process_tree import children, is_alive
from vllm_build import NEEDS_VLLM
from waiting import until

from ponder_worker.protocol import Document, Drain
from ponder_worker.search.tree.node import NodeState
from ponder_worker.search.tree.search_tree import SearchTree

from ..process import STRATEGIES, Process, job

pytestmark = [
    pytest.mark.vllm,
    pytest.mark.timeout(480),
    NEEDS_VLLM,
]


class VllmProcess(Process):
    patience_s = 300  # vLLM takes half a minute to be imported, and more where others compute


def options_of(folder: Path, **changes: Any) -> dict[str, Any]:
    return {
        "model": str(folder),
        "engine": "vllm",
        "dtype": "float32",
        "device": "cpu",
        "num_threads": 1,
        "kv_bytes": 1 << 24,
        "max_sequences": 32,
        "max_step_tokens": 512,
        "engine_args": ("enforce_eager=true",),
    } | changes


@pytest.fixture(scope="module")
def folder(llama_folder: Callable[..., Path]) -> Path:
    return llama_folder(head_dim=32)


@pytest.fixture(scope="module")
def reward_folder(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    copied = shutil.copytree(folder, tmp_path_factory.mktemp("reward") / "model")
    (copied / "reward.json").write_text('{"kind": "likelihood"}')
    return copied


@pytest.fixture(scope="module")
def shared(folder: Path, reward_folder: Path) -> Iterator[VllmProcess]:
    """Generator and reward model, both on vLLM."""
    process = VllmProcess(**options_of(folder, reward_model=str(reward_folder)))
    yield process
    process.close()


def test_every_strategy_runs_and_its_work_is_booked(shared: Process) -> None:
    assert shared.ready.has_reward_model
    jobs = [job(number, strategy) for number, strategy in enumerate(STRATEGIES)]
    shared.admit(*jobs)
    results, reports = shared.finish(len(jobs))
    assert {number: result.error for number, result in results.items() if result.error} == {}
    weights: dict[int, float] = {}
    for report in reports:
        for work in report.work:
            assert work.weight >= 0
            weights[work.job_id] = weights.get(work.job_id, 0.0) + work.weight
    assert all(weights[number] > 0 for number in results)
    assert all(result.usage.completion_tokens for result in results.values())


def test_a_drained_process_hands_over_every_token_and_the_next_goes_on_from_them(
    folder: Path, reward_folder: Path
) -> None:
    """The next has its reward model on our own engine, which changes scores by nothing but rounding."""
    options = options_of(folder, reward_model=str(reward_folder))
    jobs = [
        job(number, strategy, sampling={"max_tokens": 300, "presence_penalty": 0.5})
        for number, strategy in enumerate(STRATEGIES)
    ]
    first = VllmProcess(**options)
    first.admit(*jobs)
    deltas: dict[int, list[Document]] = {}
    while not deltas:
        for job_id, delta in first.report().deltas.items():
            deltas.setdefault(job_id, []).append(delta)
    started_s = time.monotonic()
    first.send(Drain())
    last = first.receive_report()
    first.process.join(20)
    assert time.monotonic() - started_s < 5
    assert (last.is_last, first.process.exitcode) == (True, 0)
    for job_id, delta in last.deltas.items():
        deltas.setdefault(job_id, []).append(delta)
    trees = {job_id: SearchTree.fold(0, saved) for job_id, saved in deltas.items()}
    half_grown = [job_id for job_id, tree in trees.items() if any(n.state is NodeState.GROWING for n in tree.nodes)]
    assert half_grown

    second = VllmProcess(**(options | {"reward_engine": "own"}))
    second.admit(*(replace(one, deltas=tuple(deltas[one.job_id])) for one in jobs if one.job_id in deltas))
    finished, _ = second.finish(len(deltas))
    second.close()
    assert {number: result.error for number, result in finished.items() if result.error} == {}
    for job_id in half_grown:
        for before, after in zip(trees[job_id].nodes[1:], finished[job_id].tree["nodes"][1:], strict=False):
            assert after["ids"][: len(before.ids)] == before.ids, "a saved token was lost"


def test_executors_compute_and_none_is_left_when_the_process_is_killed(folder: Path) -> None:
    process = VllmProcess(**options_of(folder, engine_args=("enforce_eager=true", "tensor_parallel_size=2")))
    assert process.ready.fingerprint
    pid = process.process.pid
    assert pid is not None
    executors = children(pid)
    assert len(executors) >= 2
    process.admit(job(1, {"name": "self_consistency", "n": 4}))
    results, _ = process.finish(1)
    assert results[1].error is None
    os.kill(pid, signal.SIGKILL)
    process.process.join(10)
    until(lambda: not any(is_alive(one) for one in executors), 10)


def test_executors_are_gone_within_seconds_of_a_drain(folder: Path) -> None:
    process = VllmProcess(**options_of(folder, engine_args=("enforce_eager=true", "tensor_parallel_size=2")))
    pid = process.process.pid
    assert pid is not None
    executors = children(pid)
    process.admit(job(1, {"name": "direct"}, sampling={"max_tokens": 300}))
    while not process.report().deltas:
        pass
    started_s = time.monotonic()
    process.send(Drain())
    assert process.receive_report().is_last
    process.process.join(10)
    until(lambda: not any(is_alive(one) for one in executors), 5)
    assert time.monotonic() - started_s < 5


def test_a_refusal_of_vllms_is_said_in_its_words_and_ends_the_process_at_once(folder: Path, tmp_path: Path) -> None:
    other = shutil.copytree(folder, tmp_path / "other")
    config = json.loads((other / "config.json").read_text())
    (other / "config.json").write_text(json.dumps(config | {"architectures": ["PonderForCausalLM"]}))
    process = VllmProcess(**options_of(other))
    assert "vLLM cannot run it" in process.failed.message
    process.close()
