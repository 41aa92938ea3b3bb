"""The engine process over a real pipe, with a small random model."""

from __future__ import annotations

import contextlib
import json
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import pytest

from ponder_worker import engine_process
from ponder_worker.engine_process.loading import load
from ponder_worker.engine_process.options import EngineOptions
from ponder_worker.models.errors import UnsupportedModel
from ponder_worker.search.node import NodeState
from ponder_worker.search.tree import SearchTree

STRATEGIES: list[dict[str, Any]] = [
    {"name": "direct"},
    {"name": "self_consistency", "n": 4},
    {"name": "best_of_n", "n": 4},
    {"name": "best_of_n", "n": 3, "select": "weighted"},
    {"name": "beam_search", "n": 4, "width": 2, "max_rounds": 5, "separator": "a"},
    {"name": "dvts", "n": 4, "width": 2, "max_rounds": 3, "separator": "a"},
    {"name": "rebase", "n": 4, "max_rounds": 3, "separator": "a"},
    {"name": "mcts", "n": 3, "width": 2, "separator": "a"},
    {"name": "particle_filter", "n": 3, "max_rounds": 3, "separator": "a"},
    {"name": "budget_forcing", "answer": "="},
]
SCORELESS = {"direct", "self_consistency", "budget_forcing"}


class Process:
    """The parent's side of the protocol."""

    def __init__(self, **options: Any) -> None:
        context = multiprocessing.get_context("spawn")
        self.pipe: Connection
        self.pipe, theirs = context.Pipe()
        self.process = context.Process(target=engine_process.main, args=(theirs, json.dumps(options)), daemon=True)
        self.process.start()
        theirs.close()
        self.first = self.receive()

    def send(self, **message: Any) -> None:
        self.pipe.send_bytes(json.dumps(message).encode())

    def receive(self) -> dict[str, Any]:
        assert self.pipe.poll(60), "the process says nothing"
        message: dict[str, Any] = json.loads(self.pipe.recv_bytes())
        return message

    def admit(self, *jobs: dict[str, Any]) -> None:
        self.send(type="admit", jobs=list(jobs))

    def report(self) -> dict[str, Any]:
        self.send(type="report")
        return self.receive()

    def finish(self, num_jobs: int) -> tuple[dict[int, dict[str, Any]], list[dict[str, Any]]]:
        """-> finished by job, and all reports until then."""
        finished: dict[int, dict[str, Any]] = {}
        reports = []
        until = time.monotonic() + 120
        while len(finished) < num_jobs:
            assert time.monotonic() < until
            reports.append(self.report())
            finished |= {entry["job_id"]: entry for entry in reports[-1]["finished"]}
            time.sleep(0.05)
        return finished, reports

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self.pipe.close()
        self.process.join(10)
        if self.process.is_alive():
            self.process.kill()
            pytest.fail("the process outlived its pipe")


def job(job_id: int, strategy: dict[str, Any], *, prompt: str = "Compute 1 + 1.", **changes: Any) -> dict[str, Any]:
    sampling = {
        "temperature": 1.0,
        "top_p": None,
        "max_tokens": 24,
        "stop": [],
        "seed": None,
        "presence_penalty": 0.0,
        "frequency_penalty": 0.0,
        "logprobs": False,
    } | changes.pop("sampling", {})
    request = {
        "messages": [{"role": "user", "content": prompt}],
        "sampling": sampling,
        "n": 1,
        "strategy": strategy,
        "budget": {},
        "verifier": None,
        "reference": None,
    }
    return {"job_id": job_id, "tenant_id": "tenant_a", "request": request | changes, "deltas": []}


@pytest.fixture(scope="module")
def reward_llama(llama_folder: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("reward") / "model"
    shutil.copytree(llama_folder(), folder)
    (folder / "reward.json").write_text('{"kind": "likelihood"}')
    return folder


@pytest.fixture(scope="module")
def options(tiny_llama: Path, reward_llama: Path) -> dict[str, Any]:
    return {"model": str(tiny_llama), "reward_model": str(reward_llama), "num_threads": 1, "kv_bytes": 1 << 22}


@pytest.fixture(scope="module")
def shared(options: dict[str, Any]) -> Iterator[Process]:
    process = Process(**options)
    yield process
    process.close()


def test_it_says_that_it_is_ready(shared: Process) -> None:
    ready = shared.first
    assert ready["type"] == "ready"
    assert len(ready["fingerprint"]) == 16
    assert ready["context_length"] == 512
    assert ready["has_reward_model"] is True
    assert ready["room_tokens"] > 0


def test_the_same_generator_without_its_reward_model_has_another_fingerprint(
    shared: Process, options: dict[str, Any]
) -> None:
    alone = Process(**{**options, "reward_model": None})
    alone.close()
    assert alone.first["fingerprint"] != shared.first["fingerprint"]


def test_jobs_of_all_strategies_finish_with_an_answer_a_tree_and_a_bill(shared: Process) -> None:
    shared.admit(*(job(number, strategy) for number, strategy in enumerate(STRATEGIES)))
    finished, reports = shared.finish(len(STRATEGIES))
    weights = dict.fromkeys(finished, 0.0)
    for entry in (entry for report in reports for entry in report["work"]):
        assert entry["kind"] == "work", "nothing was lost, so nothing was computed again"
        weights[entry["job_id"]] += entry["weight"]
    for number, entry in finished.items():
        assert entry["error"] is None
        assert entry["finish_reason"] in ("stop", "length")
        (choice,) = entry["choices"]
        tree = entry["tree"]
        chosen = tree["candidates"][tree["chosen"]]
        assert choice["answer"] == chosen["answer"]
        assert choice["score"] == chosen["score"]
        assert (choice["score"] is None) == (STRATEGIES[number]["name"] in SCORELESS)
        made = sum(len(node["ids"]) for node in tree["nodes"])
        assert entry["usage"]["completion_tokens"] == made > 0
        assert entry["usage"]["prompt_tokens"] > 10
        assert (entry["usage"]["reward_tokens"] > 0) == (choice["score"] is not None)
        assert weights[number] > 0
    assert reports[-1]["num_jobs"] == 0
    assert sum(report["steps"] for report in reports) > 24
    assert 0 <= reports[-1]["idle_fraction"] <= 1


def test_without_work_it_is_idle_and_says_so(shared: Process) -> None:
    shared.report()
    time.sleep(0.3)
    report = shared.report()
    assert report["idle_fraction"] > 0.9
    assert report["work"] == []
    assert report["steps"] == 0


def test_bad_requests_fail_alone_and_say_why(shared: Process) -> None:
    shared.admit(
        job(10, {"name": "direct"}, prompt="x" * 2000),
        job(11, {"name": "guess"}),
        job(12, {"name": "direct"}),
        job(13, {"name": "direct"}, sampling={"temperature": -1.0}),
        job(14, {"name": "direct"}, messages=[{"role": "user"}]),
        {"job_id": 15, "tenant_id": "tenant_a", "request": {}, "deltas": []},
        job(16, {"name": "direct"}) | {"deltas": [{"nodes": [{"node": 7, "state": "?"}]}]},
    )
    finished, _ = shared.finish(7)
    assert {finished[number]["error"]["code"] for number in (15, 16)} == {"invalid_request"}
    assert finished[10]["error"]["code"] == "context_length_exceeded"
    assert "512" in finished[10]["error"]["message"]
    assert finished[11]["error"]["code"] == "invalid_request"
    assert finished[13]["error"]["code"] == "invalid_request"
    assert "temperature" in finished[13]["error"]["message"]
    assert finished[12]["error"] is None
    assert not any("xxx" in json.dumps(entry) for entry in finished.values())


def test_openai_sampling_fields_are_honoured(shared: Process) -> None:
    greedy = {"temperature": 0.0}
    shared.admit(
        job(20, {"name": "direct"}, n=2, sampling=greedy),
        job(21, {"name": "direct"}, sampling={"seed": 5, "logprobs": True}),
        job(22, {"name": "direct"}, sampling={"seed": 5}),
        job(23, {"name": "direct"}, sampling={"seed": 6}),
        job(24, {"name": "direct"}, sampling=greedy | {"max_tokens": 5}),
        job(25, {"name": "direct"}, n=3),
        job(26, {"name": "direct"}, sampling=greedy | {"frequency_penalty": 2.0, "presence_penalty": 2.0}),
    )
    finished, _ = shared.finish(7)
    texts = {number: [choice["text"] for choice in entry["choices"]] for number, entry in finished.items()}
    assert texts[20][0] == texts[20][1]
    assert texts[21] == texts[22] != texts[23]
    assert texts[20][0].startswith(texts[24][0])
    assert finished[24]["finish_reason"] == "length"
    assert finished[24]["usage"]["completion_tokens"] == 5
    assert len(set(texts[25])) > 1
    assert texts[26] != texts[20][:1]
    content = finished[21]["choices"][0]["logprobs"]["content"]
    made = bytes(byte for entry in content for byte in entry["bytes"])
    assert made.decode(errors="replace") == texts[21][0]
    assert all(entry["logprob"] <= 0 for entry in content)
    stop = texts[20][0][3]
    shared.admit(job(27, {"name": "direct"}, sampling=greedy | {"stop": [stop]}))
    (entry,) = shared.finish(1)[0].values()
    assert entry["choices"][0]["text"] == texts[20][0][: texts[20][0].index(stop)]
    assert entry["finish_reason"] == "stop"


def test_a_budget_is_never_passed(shared: Process) -> None:
    jobs = [
        job(30 + number, strategy, budget={"tokens": 50}, sampling={"max_tokens": None})
        for number, strategy in enumerate([*STRATEGIES, {"name": "adaptive", "n": 4}])
    ]
    whole = job(60, {"name": "best_of_n", "n": 8}, budget={"tokens": 100, "tokens_per_sample": 20})
    shared.admit(*jobs, whole)
    finished, _ = shared.finish(len(jobs) + 1)
    assert all(0 < entry["usage"]["completion_tokens"] <= 50 for number, entry in finished.items() if number < 60)
    assert finished[60]["usage"]["completion_tokens"] <= 100
    assert len(finished[60]["tree"]["nodes"]) >= 1 + 5
    assert finished[60]["finish_reason"] == "budget"


def test_what_the_batch_has_learnt_decides_what_a_job_gets_and_it_teaches_the_batch(shared: Process) -> None:
    adaptive = {"name": "adaptive", "n": 8}
    learned = {"solved": 1e6, "spent": 1e6} | {f"1.{bucket}.samples.tokens": 1e9 for bucket in range(3)}
    jobs = [job(80 + number, adaptive) | {"batch_id": "hopeless" if number < 8 else "new"} for number in range(16)]
    shared.send(type="admit", jobs=jobs, learned={"hopeless": learned, "other": {"x": 1}})
    finished, _ = shared.finish(16)
    num_nodes = {number: len(entry["tree"]["nodes"]) - 1 for number, entry in finished.items()}
    assert sum(num_nodes[number] == 1 for number in range(80, 88)) >= 6, "more had helped nobody"
    assert sum(num_nodes[number] > 2 for number in range(88, 96)) >= 6
    for entry in finished.values():
        assert entry["learned"]["spent"] == entry["usage"]["completion_tokens"]
        assert 0 <= entry["learned"]["solved"] <= 1


def test_dropped_jobs_are_forgotten_and_ended_ones_settle_with_what_there_is(shared: Process) -> None:
    long = {"max_tokens": 400}
    shared.admit(
        job(50, {"name": "direct"}, sampling=long),
        job(51, {"name": "self_consistency", "n": 3}, sampling=long),
    )
    while not shared.report()["deltas"]:
        time.sleep(0.02)
    shared.send(type="drop", job_ids=[50])
    shared.send(type="end", jobs={"51": "deadline"})
    finished, reports = shared.finish(1)
    assert set(finished) == {51}
    assert finished[51]["finish_reason"] == "deadline"
    assert len(finished[51]["choices"]) == 1
    assert finished[51]["usage"]["completion_tokens"] < 1200
    assert reports[-1]["num_jobs"] == 0


def test_a_drained_process_hands_over_every_token_and_the_next_goes_on_from_them(options: dict[str, Any]) -> None:
    jobs = [job(number, strategy, sampling={"max_tokens": 200}) for number, strategy in enumerate(STRATEGIES)]
    first = Process(**options)
    first.admit(*jobs)
    deltas: dict[str, list[dict[str, Any]]] = {}
    while not deltas:
        report = first.report()
        for job_id, new in report["deltas"].items():
            deltas.setdefault(job_id, []).extend(new)
    time.sleep(0.2)
    first.send(type="drain")
    last = first.receive()
    assert last["drained"] is True
    first.process.join(20)
    assert first.process.exitcode == 0
    for job_id, new in last["deltas"].items():
        deltas.setdefault(job_id, []).extend(new)
    trees = {job_id: SearchTree.fold(0, new) for job_id, new in deltas.items()}
    half_grown = [job_id for job_id, tree in trees.items() if any(n.state is NodeState.GROWING for n in tree.nodes)]
    assert half_grown

    second = Process(**options)
    second.admit(
        *(one | {"deltas": deltas.get(str(one["job_id"]), [])} for one in jobs if str(one["job_id"]) in deltas)
    )
    finished, reports = second.finish(len(deltas))
    second.close()
    recomputed = {entry["job_id"] for report in reports for entry in report["work"] if entry["kind"] == "recomputed"}
    for job_id in half_grown:
        entry = finished[int(job_id)]
        for before, after in zip(trees[job_id].nodes[1:], entry["tree"]["nodes"][1:], strict=False):
            assert after["ids"][: len(before.ids)] == before.ids, "a saved token was lost"
        assert int(job_id) in recomputed
        assert entry["usage"]["recomputed_tokens"] > 0


def test_a_model_that_cannot_be_loaded_is_reported(tmp_path: Path) -> None:
    process = Process(model=str(tmp_path))
    assert process.first["type"] == "failed"
    assert "config.json" in process.first["message"]
    process.close()


def test_without_a_chat_template_each_job_fails_with_a_clear_message(tiny_llama: Path, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(tiny_llama, folder)
    (folder / "chat_template.jinja").unlink()
    process = Process(model=str(folder), num_threads=1)
    assert process.first["has_reward_model"] is False
    process.admit(job(1, {"name": "direct"}))
    (entry,) = process.finish(1)[0].values()
    assert entry["error"]["code"] == "invalid_conversation"
    assert "chat template" in entry["error"]["message"]
    process.close()


def test_a_reward_model_with_another_tokenizer_reads_the_text(
    tiny_llama: Path, reward_llama: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "reward"
    shutil.copytree(reward_llama, folder)
    tokenizer = json.loads((folder / "tokenizer.json").read_text())
    tokenizer["model"]["merges"] = []  # every character a token
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    process = Process(model=str(tiny_llama), reward_model=str(folder), num_threads=1)
    process.admit(job(1, STRATEGIES[4]), job(2, STRATEGIES[2]))
    finished, _ = process.finish(2)
    assert [entry["error"] for entry in finished.values()] == [None, None]
    assert all(entry["choices"][0]["score"] < 0 for entry in finished.values())
    process.close()


def test_a_reward_model_that_is_read_at_marks_scores_every_step(
    tiny_llama: Path, reward_llama: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "reward"
    shutil.copytree(reward_llama, folder)
    fields = {"kind": "token", "mark": " ?", "suffix": "+\n", "good": "+", "bad": "-"}
    (folder / "reward.json").write_text(json.dumps(fields))
    process = Process(model=str(tiny_llama), reward_model=str(folder), num_threads=1)
    process.admit(job(1, STRATEGIES[4]), job(2, STRATEGIES[2]))
    finished, _ = process.finish(2)
    assert [entry["error"] for entry in finished.values()] == [None, None]
    assert all(entry["choices"][0]["score"] < 0 for entry in finished.values())
    assert all(entry["usage"]["reward_tokens"] > 0 for entry in finished.values())
    process.close()


def test_a_reward_model_without_the_head_of_its_kind_is_refused_by_name(tiny_llama: Path, tmp_path: Path) -> None:
    folder = tmp_path / "reward"
    shutil.copytree(tiny_llama, folder)
    (folder / "reward.json").write_text(json.dumps({"kind": "classes", "mark": " ?"}))
    with pytest.raises(UnsupportedModel, match="these weights, which have no head"):
        load(EngineOptions(model=str(tiny_llama), reward_model=str(folder), kv_bytes=1 << 20))


def test_it_dies_with_a_parent_that_was_killed(tiny_llama: Path) -> None:
    script = (
        "import json, multiprocessing, sys, time\n"
        "from ponder_worker import engine_process\n"
        "if __name__ == '__main__':\n"
        "    context = multiprocessing.get_context('spawn')\n"
        "    ours, theirs = context.Pipe()\n"
        "    process = context.Process(target=engine_process.main, args=(theirs, sys.argv[1]))\n"
        "    process.start()\n"
        "    ours.recv_bytes()\n"
        "    print(process.pid, flush=True)\n"
        "    time.sleep(60)\n"
    )
    path = tiny_llama.parent / "parent.py"
    path.write_text(script)
    options = json.dumps({"model": str(tiny_llama), "num_threads": 1})
    parent = subprocess.Popen([sys.executable, str(path), options], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    child = int(parent.stdout.readline())
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    parent.stdout.close()
    until = time.monotonic() + 5
    while Path(f"/proc/{child}").exists() and "Z" not in Path(f"/proc/{child}/stat").read_text().split()[2]:
        assert time.monotonic() < until, os.kill(child, signal.SIGKILL)
        time.sleep(0.05)


def test_a_message_that_it_does_not_understand_ends_it_at_once(tiny_llama: Path) -> None:
    process = Process(model=str(tiny_llama), num_threads=1)
    process.send(type="dance")
    process.process.join(5)
    assert process.process.exitcode == 1, "our own bug, which must not look like an engine that is busy"


def test_idle_it_checks_its_pages_after_it_has_reported_what_it_made(tiny_llama: Path, tmp_path: Path) -> None:
    script = tmp_path / "broken.py"
    script.write_text(
        "import json, multiprocessing, sys, threading, time\n"
        "from ponder_worker import engine_process\n"
        "from ponder_worker.engine import Engine\n"
        "def check(engine):\n"
        "    raise AssertionError('a page is missing')\n"
        "Engine.check = check\n"
        "ours, theirs = multiprocessing.Pipe()\n"
        "def parent():\n"
        "    ours.recv_bytes()\n"
        "    ours.send_bytes(json.dumps({'type': 'admit', 'jobs': [json.loads(sys.argv[2])]}).encode())\n"
        "    while True:\n"
        '        ours.send_bytes(b\'{"type": "report"}\')\n'
        "        print(len(json.loads(ours.recv_bytes())['finished']), flush=True)\n"
        "        time.sleep(0.1)\n"
        "threading.Thread(target=parent, daemon=True).start()\n"
        "engine_process.main(theirs, sys.argv[1])\n"
    )
    options = json.dumps({"model": str(tiny_llama), "num_threads": 1})
    command = [sys.executable, str(script), options, json.dumps(job(1, {"name": "direct"}))]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert ended.returncode == 1
    assert "a page is missing" in ended.stderr
    assert ended.stdout.split()[-1] == "1"


def test_out_of_pages_everybody_finishes_and_what_is_computed_again_is_booked_as_such(tiny_llama: Path) -> None:
    process = Process(model=str(tiny_llama), num_threads=1, kv_bytes=512 * 16 * 20)  # 20 pages of 16 tokens
    assert process.first["context_length"] == 320
    sampling = {"max_tokens": 100}
    process.admit(*(job(number, {"name": "self_consistency", "n": 4}, sampling=sampling) for number in range(4)))
    finished, reports = process.finish(4)
    assert [entry["error"] for entry in finished.values()] == [None] * 4
    assert sum(entry["usage"]["recomputed_tokens"] for entry in finished.values()) > 0
    again = sum(entry["weight"] for report in reports for entry in report["work"] if entry["kind"] == "recomputed")
    counters = reports[-1]["metrics"]
    assert counters["num_preemptions"] > 0
    told = sum(entry["usage"]["recomputed_tokens"] for entry in finished.values())
    assert told == counters["recomputed_tokens"]
    assert again > 0
    process.close()
