"""Workers on vLLM that vanish in the middle of a best-of-8, with executor processes of their own."""

from __future__ import annotations

import os
import signal
import time

import pytest
from fleet import LEASE_S, Fleet, until
from process_tree import children, is_alive
from vllm_build import NEEDS_VLLM

pytestmark = [
    pytest.mark.vllm,
    pytest.mark.system,
    pytest.mark.timeout(480),
    NEEDS_VLLM,
]

TOKENS = 1000
ALONE = ("--engine", "vllm", "--reward-engine", "own", "--engine-arg", "enforce_eager=true", "--max-sequences", "32")
SPREAD = (*ALONE, "--engine-arg", "tensor_parallel_size=2")


def test_whichever_process_dies_the_next_worker_on_vllm_goes_on_from_its_tokens(fleet: Fleet) -> None:
    """One worker is killed, the engine process of one, and one is told to stop; a fourth finishes."""
    fleet.start_dispatcher()
    for arguments in (SPREAD, SPREAD, ALONE, ALONE):
        fleet.start_worker(*arguments)
    until(lambda: fleet.scalar("SELECT count(*) FROM incarnations WHERE state = 'ready'") == 4, 400)
    fleet.submit(1, max_tokens=TOKENS)
    until(lambda: fleet.num_saved_tokens() >= TOKENS, 60)

    for number, end in enumerate((_kill_worker, _kill_engine, _tell), start=2):
        holder = fleet.holder()
        family = children(holder.pid)
        num_saved = fleet.num_saved_tokens()
        end(fleet, holder.pid)
        holder.wait(10)
        until(lambda family=family: not any(map(is_alive, family)), 5)  # type: ignore[misc]
        until(
            lambda number=number, num_saved=num_saved: (  # type: ignore[misc]
                len(fleet.outcomes()) == number and fleet.num_saved_tokens() > num_saved
            ),
            LEASE_S + 30,
        )
    saved = fleet.saved_ids()
    until(lambda: fleet.num_pending() == 0, 120)
    settled = fleet.settled_ids()
    assert [len(ids) for ids in settled.values()] == [TOKENS] * 8
    assert {node: settled[node][: len(ids)] for node, ids in saved.items()} == saved
    fleet.check_settled_once(1)
    assert fleet.outcomes() == ["lost", "lost", "preempted", "settled"]
    fleet.check_ledgers()


def _kill_worker(fleet: Fleet, pid: int) -> None:
    os.kill(pid, signal.SIGKILL)


def _kill_engine(fleet: Fleet, pid: int) -> None:
    worker = next(process for process in fleet._processes if process.pid == pid)
    os.kill(fleet.engine_pid(worker), signal.SIGKILL)


def _tell(fleet: Fleet, pid: int) -> None:
    told_at = time.monotonic()
    os.kill(pid, signal.SIGTERM)
    until(lambda: not is_alive(pid), 5)
    print(f"SIGTERM to exit: {time.monotonic() - told_at:.2f} s")
