"""Workers that are told or asked to leave in the middle of a beam search."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from typing import Any

import pytest
from fleet import Fleet, until
from metadata_server import AzureMachine, ComputeEngine, Ec2, metadata_server

from ponder.api.job_object import job_object
from ponder.jobs.drain import ask_to_drain

pytestmark = [pytest.mark.system, pytest.mark.timeout(180)]

N = 4
BEAM = {"name": "beam_search", "n": N, "width": 2, "max_rounds": 3, "separator": "e"}
WARNING_S = 119
LEAVES_WITHIN_S = 5
HEARS_WITHIN_S = 2


def test_each_notice_saves_a_half_grown_beam_and_the_next_worker_goes_on(fleet: Fleet) -> None:
    """Five workers in turn, each with a notice of its own, and a sixth one that heeds a recommendation and finishes."""
    azure, risky = AzureMachine(), Ec2()
    with ExitStack() as services:
        fleet.start_dispatcher()
        ways: dict[int, tuple[str, Callable[[], object]]] = {}
        clouds = {"aws notice": Ec2(), "gcp notice": ComputeEngine(), "azure notice": azure}
        for name, cloud in clouds.items():
            service = services.enter_context(metadata_server(cloud))
            ways[fleet.start_worker(metadata_url=service.url).pid] = (name, partial(cloud.preempt, WARNING_S))
        told, asked = fleet.start_worker(), fleet.start_worker()
        ways[told.pid] = ("SIGTERM", told.terminate)
        ways[asked.pid] = ("a request to drain", partial(_ask_to_drain, fleet, asked, within_s=1))
        until(lambda: fleet.scalar("SELECT count(*) FROM incarnations WHERE state = 'ready'") == len(ways), 120)
        fleet.submit(1, max_tokens=1000, strategy=BEAM)
        names = []
        while len(names) < len(ways):
            _wait_for_growth(fleet)
            holder = fleet.holder()
            name, give = ways[holder.pid]
            names.append(name)
            if len(names) == len(ways):
                last = fleet.start_worker(metadata_url=services.enter_context(metadata_server(risky)).url)
            _leave_in_time(holder, give)
        until(lambda: max((node for _, node in fleet.saved_ids()), default=0) > N, 40)  # in the middle of a beam
        _wait_for_growth(fleet)
        saved = fleet.saved_ids()
        risky.recommend(seconds=1)
        assert last.wait(60) == 0

    assert sorted(names) == sorted(name for name, _ in ways.values())
    assert azure.started == ["event-0"], "Azure need not wait any longer"
    settled = fleet.settled_ids()
    # A token that two attempts made would be here twice.
    assert {node: settled[node][: len(ids)] for node, ids in saved.items()} == saved
    fleet.check_settled_once(1)
    reason = "SELECT end_reason FROM incarnations WHERE pid = :pid"
    assert fleet.scalar(reason, pid=last.pid) == "aws rebalance recommendation"
    assert fleet.outcomes() == ["preempted"] * len(names) + ["settled"]
    _check_reasons(fleet, names)
    fleet.check_ledgers()


def _wait_for_growth(fleet: Fleet) -> None:
    """Until the holder has saved some tokens of nodes that grow."""
    num_saved = fleet.num_saved_tokens()
    until(lambda: fleet.num_saved_tokens() > num_saved, 40)


def _ask_to_drain(fleet: Fleet, worker: subprocess.Popen[bytes], *, within_s: float) -> None:
    incarnation_id = fleet.scalar("SELECT id FROM incarnations WHERE pid = :pid", pid=worker.pid)
    with fleet.engine.begin() as connection:
        assert ask_to_drain(connection, incarnation_id, within_s=within_s)


def _leave_in_time(worker: subprocess.Popen[bytes], give: Callable[[], object]) -> None:
    given_at = time.monotonic()
    give()
    assert worker.wait(15) == 0
    seconds = time.monotonic() - given_at
    print(f"from the notice to the exit: {seconds:.1f} s")
    assert seconds < HEARS_WITHIN_S + LEAVES_WITHIN_S


def _check_reasons(fleet: Fleet, names: list[str]) -> None:
    """Each attempt says which notice ended it, and how long before, where the cloud tells when the machine goes."""
    with fleet.engine.connect() as connection:
        attempts: Any = job_object(connection, "t", f"job_{fleet.scalar('SELECT id FROM jobs')}")["attempts"]
    assert attempts[-1]["reason"] is None
    for name, attempt in zip(names, attempts, strict=False):
        reason, _, warning = attempt["reason"].partition(", ")
        assert reason == name
        if name in ("aws notice", "azure notice"):
            seconds, *words = warning.split()
            assert WARNING_S - 10 < int(seconds) <= WARNING_S
            assert words == ["s", "before"]
        else:
            assert warning == ""
