"""Jobs whose model judges its own answers. A small random model replies nothing readable, unless a test reads it so."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any

import pytest

from ponder.domain.batch.stages import Pin
from ponder_worker.engine_process.engine_core import EngineCore
from ponder_worker.engine_process.job import Job
from ponder_worker.engine_process.loading.engines import Engines
from ponder_worker.protocol import Choice, Document, JobResult
from ponder_worker.search import judging

from ..searches import admitted, run

# The shipped questions are longer than this model's context.
JUDGE = {"name": "judge", "max_tokens": 20, "template": "{problem} {answer}"}
_IN_PAIRS = {"n": 2, "max_tokens": 12, "template": "{answers}"}
CONTEST = {"name": "best_of_n", "n": 4, "early_stopping": None, "judge": _IN_PAIRS}
SHORT = {"temperature": 1.0, "max_tokens": 30, "stop": [], "logit_bias": {"2": 4.0}}
"""Most samples end by themselves."""


@pytest.fixture
def readable(monkeypatch: pytest.MonkeyPatch) -> None:
    """Reads something out of every reply, by its characters."""
    monkeypatch.setattr(judging, "_verdict", lambda reply: sum(map(ord, reply)) % 2)
    monkeypatch.setattr(judging, "_better", lambda reply: sum(map(ord, reply)) % 2)
    monkeypatch.setattr(judging, "_choice", lambda reply, num: sum(map(ord, reply)) % num)


def made(engines: Engines, **changes: Any) -> JobResult:
    (result,) = run(EngineCore(engines, lambda: None), [admitted(7, **{"strategy": {"name": "direct"}} | changes)])
    assert result.error is None
    return result


def judges(result: JobResult) -> list[Document]:
    """Returns the nodes that a judge has made."""
    nodes = result.tree["nodes"]
    return [node for node in nodes if node["parent"] > 0 and nodes[node["parent"]].get("prompt")]


def test_the_verifier_judge_asks_the_model_itself_in_a_prompt_of_its_own(engines: Engines) -> None:
    result, plain = made(engines, verifier=JUDGE), made(engines)
    assert result.judged is None
    assert result.tree["decisions"]["verdict"] == {"passed": None, "votes": [0, 0, 1]}
    (reply,) = judges(result)
    prompt = result.tree["nodes"][reply["parent"]]
    assert (prompt["prompt"], prompt["parent"], prompt["ids"], prompt["tokens"], prompt["text"]) == (True, 0, [], 0, "")
    assert 0 < reply["tokens"] <= 20
    assert result.usage.judge_tokens == reply["tokens"]
    assert result.usage.completion_tokens == plain.usage.completion_tokens + reply["tokens"]
    assert result.usage.prompt_tokens == plain.usage.prompt_tokens
    assert result.choices[0].text == plain.choices[0].text
    assert plain.judged is None
    assert "decisions" not in plain.tree


def test_what_the_job_asks_of_its_answers_is_not_asked_of_the_judge(engines: Engines) -> None:
    greedy = judges(made(engines, verifier=JUDGE))[0]["ids"]
    answer = made(engines).tree["nodes"][1]["ids"]
    sampling = {"temperature": 1.0, "max_tokens": 40, "seed": 7, "min_tokens": 30, "stop": ["\x00"], "top_p": 0.9}
    sampling |= {"logit_bias": {str(greedy[0]): -100.0}, "logprobs": True, "top_logprobs": 3}
    other = made(engines, verifier=JUDGE, sampling=sampling)
    assert other.tree["nodes"][1]["ids"] != answer
    (reply,) = judges(other)
    assert reply["tokens"] <= 20
    again = made(engines, verifier=JUDGE, sampling=sampling)
    assert judges(again)[0]["ids"] == reply["ids"]


@pytest.mark.usefixtures("readable")
@pytest.mark.parametrize("select", ["tournament", "genselect"])
def test_a_judge_chooses_among_samples_and_the_budget_is_never_passed(engines: Engines, select: str) -> None:
    for tokens in (None, 60, 90):
        result = made(engines, strategy=CONTEST | {"select": select}, budget={"tokens": tokens}, sampling=SHORT)
        told = result.tree["decisions"]["select"]
        assert told["by"] == select
        assert [one["node"] for one in result.tree["candidates"]][: len(told["nodes"])] == told["nodes"]
        assert tokens is not None or told["matches"]
        assert result.usage.judge_tokens == sum(node["tokens"] for node in judges(result))
        assert tokens is None or result.usage.completion_tokens <= tokens
        assert result.usage.reward_tokens == 0


@pytest.mark.usefixtures("readable")
@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("select", ["tournament", "genselect"])
def test_interrupted_anywhere_the_judge_comes_to_the_same_choice_and_the_same_verdict(
    engines: Engines, select: str, seed: int
) -> None:
    changes = {"strategy": CONTEST | {"select": select}, "verifier": JUDGE, "sampling": SHORT | {"seed": seed}}
    whole = made(engines, **changes)
    deltas: list[Document] = []

    def save(jobs: list[Job]) -> None:
        deltas.append(json.loads(json.dumps(jobs[0].delta())))

    run(EngineCore(engines, lambda: None), [admitted(7, **changes)], save)
    saved = [delta for delta in deltas if delta]
    for num in range(1, len(saved), 5):
        (result,) = run(EngineCore(engines, lambda: None), [admitted(7, deltas=saved[:num], **changes)])
        assert result.judged == whole.judged
        assert texts(result) == texts(whole)
        assert result.usage.completion_tokens == whole.usage.completion_tokens
        assert result.usage.judge_tokens == whole.usage.judge_tokens > 0


def test_a_reply_without_room_is_no_sample_that_the_budget_ended_also_after_a_restart(engines: Engines) -> None:
    changes = {"strategy": {"name": "direct"}, "verifier": JUDGE, "budget": {"tokens": 50}}
    deltas: list[Document] = []

    def keep(jobs: list[Job]) -> None:
        if (delta := jobs[0].delta()) is not None:
            deltas.append(json.loads(json.dumps(delta)))

    core = EngineCore(engines, lambda: None)
    job = admitted(7, **changes)
    (whole,) = run(core, [job], keep)
    refused = {"refused": [[2, 0, "budget"]], "nodes": [{"node": 2, "ordinal": 1, "prompt": [5]}]}
    (again,) = run(core, [admitted(7, deltas=[*deltas, refused], **changes)])
    assert whole.usage.judge_tokens == again.usage.judge_tokens == 0
    assert whole.finish_reason == again.finish_reason == "length"


def texts(result: JobResult) -> list[str]:
    return [result.tree["nodes"][one["node"]]["text"] for one in result.tree["candidates"]]


def test_told_to_end_while_the_judge_replies_the_job_settles_with_its_answer(engines: Engines) -> None:
    def end(jobs: list[Job]) -> None:
        if any(node.is_prompt for node in jobs[0].tree.nodes) and jobs[0].tree.ended is None:
            jobs[0].end("deadline")

    admitted_job = admitted(7, strategy={"name": "direct"}, verifier=JUDGE | {"max_tokens": 200})
    (result,) = run(EngineCore(engines, lambda: None), [admitted_job], end)
    assert result.error is None
    assert result.judged is None
    assert result.choices[0].text == made(engines).choices[0].text
    assert judges(result)[0]["stop"] == "deadline"


@pytest.mark.usefixtures("readable")
def test_a_stage_is_accepted_by_its_judge_and_only_the_answer_that_counts_gets_a_verdict(engines: Engines) -> None:
    pin = Pin("m", engines.fingerprint, 512).document()
    verdicts = set()
    for seed in range(8):
        stages = [
            {"strategy": {"name": "direct"}, "accept": _IN_PAIRS | {"by": "judge", "template": "{answer}"}},
            {"strategy": {"name": "direct"}},
        ]
        strategy = {"name": "cascade", "stages": stages, "route": False}
        job = admitted(7, strategy=strategy, stages=[pin, pin], sampling=SHORT | {"seed": seed}, verifier=JUDGE)
        (result,) = run(EngineCore(engines, lambda: None), [job])
        (stage,) = result.tree["stages"]
        told = stage["decisions"]["accept"]
        assert told["accepted"] == (told["votes"][0] > told["votes"][1])
        assert ("verdict" in stage["decisions"]) == told["accepted"]
        assert (result.judged is not None) <= told["accepted"]
        verdicts.add(told["accepted"])
    assert verdicts == {True, False}


def test_no_model_verifies_an_answer_that_is_not_the_jobs(engines: Engines) -> None:
    pin = Pin("m", engines.fingerprint, 512).document()
    stages = [{"strategy": {"name": "direct"}, "accept": {"by": "agreement"}}, {"strategy": {"name": "direct"}}]
    request = {"strategy": {"name": "cascade", "stages": stages}, "stages": [pin, pin], "verifier": JUDGE}
    for reason, num_asked in [("stop", 0), ("length", 1)]:
        tree = {"step": 0, "stage": 0, "task": "solve", "nodes": [{}, {}], "decisions": {}}
        former = JobResult(7, choices=(Choice("4", "4", reason, None),), tree=tree)
        delta = {"step": 0, "nodes": [], "result": asdict(former), "next": 1}
        sampling = SHORT | {"max_tokens": 3, "min_tokens": 3}
        job = admitted(7, deltas=[delta], sampling=sampling, **request)
        (result,) = run(EngineCore(engines, lambda: None), [job])
        assert result.choices[0].finish_reason == reason
        assert sum(bool(node.get("prompt")) for node in result.tree["stages"][1]["nodes"]) == num_asked


def test_a_judge_reads_the_text_that_was_completed_too(engines: Engines) -> None:
    request = admitted(7, strategy={"name": "direct"}, verifier=JUDGE).request
    del request["messages"]
    job = admitted(7)
    (result,) = run(
        EngineCore(engines, lambda: None), [type(job)(7, "a", "b", job.lane, request | {"prompt": "1 + 1"})]
    )
    assert result.error is None
    assert result.tree["decisions"]["verdict"]["votes"] == [0, 0, 1]
