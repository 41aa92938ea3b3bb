"""The life of the engine process: told over a real pipe, with a small random model."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from ponder.processor import Precision
from ponder_worker.protocol import Admit, Document, Drain, Loading, encode
from ponder_worker.search.tree.node import NodeState
from ponder_worker.search.tree.search_tree import SearchTree

from ..process import STRATEGIES, Process, job


def test_it_says_that_it_is_ready(shared_process: Process) -> None:
    ready = shared_process.ready
    assert len(ready.fingerprint) == 16
    assert ready.context_length == 512
    assert ready.has_reward_model is True
    assert ready.room_tokens > 0


def test_before_it_loads_it_says_where_it_computes_each_model_and_in_what(shared_process: Process) -> None:
    precision = Precision("float32", "the checkpoint's own")
    assert shared_process.loading == Loading("cpu", (precision, precision))


def test_without_work_it_is_idle_and_says_so(shared_process: Process) -> None:
    shared_process.report()
    time.sleep(0.3)
    report = shared_process.report()
    assert report.idle_fraction > 0.9
    assert report.work == ()
    assert report.num_steps == 0


def test_a_job_that_is_admitted_again_runs_once(shared_process: Process) -> None:
    one = job(501, {"name": "direct"})
    before = shared_process.report().metrics.numbers["prompt_tokens"]
    shared_process.admit(one, one)
    shared_process.admit(one)
    results, reports = shared_process.finish(1)
    while reports[-1].num_jobs:
        reports.append(shared_process.report())
    assert [len(report.results) for report in reports].count(1) == 1
    assert reports[-1].metrics.numbers["prompt_tokens"] - before == results[501].usage.prompt_tokens


def test_a_drained_process_hands_over_every_token_and_the_next_goes_on_from_them(
    engine_options: dict[str, Any],
) -> None:
    jobs = [job(number, strategy, sampling={"max_tokens": 200}) for number, strategy in enumerate(STRATEGIES)]
    first = Process(**engine_options)
    first.admit(*jobs)
    deltas: dict[int, list[Document]] = {}
    while not deltas:
        for job_id, delta in first.report().deltas.items():
            deltas.setdefault(job_id, []).append(delta)
    time.sleep(0.2)
    first.send(Drain())
    last = first.receive_report()
    assert last.is_last
    first.process.join(20)
    assert first.process.exitcode == 0
    for job_id, delta in last.deltas.items():
        deltas.setdefault(job_id, []).append(delta)
    trees = {job_id: SearchTree.fold(0, saved) for job_id, saved in deltas.items()}
    half_grown = [job_id for job_id, tree in trees.items() if any(n.state is NodeState.GROWING for n in tree.nodes)]
    assert half_grown

    second = Process(**engine_options)
    second.admit(*(replace(one, deltas=tuple(deltas[one.job_id])) for one in jobs if one.job_id in deltas))
    finished, reports = second.finish(len(deltas))
    second.close()
    recomputed = {work.job_id for report in reports for work in report.work if work.kind == "recomputed"}
    for job_id in half_grown:
        result = finished[job_id]
        for before, after in zip(trees[job_id].nodes[1:], result.tree["nodes"][1:], strict=False):
            assert after["ids"][: len(before.ids)] == before.ids, "a saved token was lost"
        assert job_id in recomputed
        assert result.usage.recomputed_tokens > 0


def test_a_model_that_cannot_be_loaded_is_reported(tmp_path: Path) -> None:
    process = Process(model=str(tmp_path))
    assert "config.json" in process.failed.message
    process.close()


def test_it_dies_with_a_parent_that_was_killed(tiny_llama: Path) -> None:
    script = (
        "import multiprocessing, sys, time\n"
        "from ponder_worker.engine_process import child\n"
        "from ponder_worker.engine_process.loading import engine_options\n"
        "if __name__ == '__main__':\n"
        "    context = multiprocessing.get_context('spawn')\n"
        "    ours, theirs = context.Pipe()\n"
        "    given = engine_options.EngineOptions(model=sys.argv[1], num_threads=1)\n"
        "    process = context.Process(target=child.main, args=(theirs, given))\n"
        "    process.start()\n"
        "    ours.recv_bytes()\n"
        "    print(process.pid, flush=True)\n"
        "    time.sleep(60)\n"
    )
    path = tiny_llama.parent / "parent.py"
    path.write_text(script)
    parent = subprocess.Popen([sys.executable, str(path), str(tiny_llama)], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    child = int(parent.stdout.readline())
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    parent.stdout.close()
    until = time.monotonic() + 5
    while Path(f"/proc/{child}").exists() and "Z" not in Path(f"/proc/{child}/stat").read_text().split()[2]:
        assert time.monotonic() < until, os.kill(child, signal.SIGKILL)
        time.sleep(0.05)


def test_after_a_sigterm_it_computes_nothing_but_still_reports_and_drains(tiny_llama: Path) -> None:
    process = Process(model=str(tiny_llama), num_threads=1)
    process.admit(job(1, {"name": "direct"}, sampling={"max_tokens": 400}))
    while process.report().num_steps == 0:
        time.sleep(0.02)
    assert process.process.pid is not None
    os.kill(process.process.pid, signal.SIGTERM)
    time.sleep(0.3)
    process.report()
    time.sleep(0.1)
    report = process.report()
    assert (report.num_steps, report.num_jobs, report.is_last) == (0, 1, False)
    process.send(Drain())
    assert process.receive_report().is_last
    process.process.join(20)
    assert process.process.exitcode == 0


def test_a_message_that_it_does_not_understand_ends_it_at_once(tiny_llama: Path) -> None:
    process = Process(model=str(tiny_llama), num_threads=1)
    process.pipe.send_bytes(b'{"type": "dance"}')
    process.process.join(5)
    assert process.process.exitcode == 1, "our own bug, which must not look like an engine that is busy"


def test_idle_it_checks_its_pages_after_it_has_reported_what_it_made(tiny_llama: Path, tmp_path: Path) -> None:
    script = tmp_path / "broken.py"
    script.write_text(
        "import multiprocessing, os, sys, threading, time\n"
        "from ponder_worker.engine_process import child\n"
        "from ponder_worker.engine_process.loading import engine_options\n"
        "from ponder_worker.engine import Engine\n"
        "from ponder_worker.protocol import ReportRequest, decode_event, encode\n"
        "leave = os._exit\n"
        "os._exit = lambda code: (time.sleep(1), leave(code))\n"  # the parent is a thread here, and shall hear of it
        "def check(engine):\n"
        "    raise AssertionError('a page is missing')\n"
        "Engine.check = check\n"
        "ours, theirs = multiprocessing.Pipe()\n"
        "def parent():\n"
        "    ours.recv_bytes(), ours.recv_bytes()\n"  # loading, ready
        "    ours.send_bytes(sys.argv[2].encode())\n"
        "    while True:\n"
        "        ours.send_bytes(encode(ReportRequest()))\n"
        "        print(len(decode_event(ours.recv_bytes()).results), flush=True)\n"
        "        time.sleep(0.1)\n"
        "threading.Thread(target=parent, daemon=True).start()\n"
        "given = engine_options.EngineOptions(model=sys.argv[1], num_threads=1, incarnation='inc_1')\n"
        "child.main(theirs, given)\n"
    )
    admit = encode(Admit((job(1, {"name": "direct"}),))).decode()
    command = [sys.executable, str(script), str(tiny_llama), admit]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert ended.returncode == 1
    said = json.loads(ended.stderr.splitlines()[-1])
    assert (said["service"], said["event"], said["incarnation"]) == ("engine", "engine_broke", "inc_1")
    assert said["exception"]["type"] == "AssertionError"
    assert "broken.py:" in said["exception"]["places"][-1]
    assert ended.stdout.split()[-1] == "1"
