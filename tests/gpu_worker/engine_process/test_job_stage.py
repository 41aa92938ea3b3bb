"""The stages of a cascade in a real engine process: one job, one tree a stage, one bill."""

from __future__ import annotations

import json
import shutil
import time
from dataclasses import asdict, replace
from pathlib import Path
from random import Random
from typing import Any

import pytest

from ponder.domain.batch.stages import lesson_scope
from ponder_worker.engine_process.job_stage import JobStage
from ponder_worker.protocol import RESULT, Admit, AdmittedJob, Choice, Document, Drop, JobResult
from ponder_worker.search import routing

from ..process import Process, error_of, job

SURE = {"by": "agreement", "threshold": 0.01}
NEVER = {"by": "reward", "threshold": 1.0}


def cascade(job_id: int, *stages: Document, show_tried: bool = False, **request: Any) -> AdmittedJob:
    pins = [{"model": f"model-{number}", "fingerprint": "f", "context_length": 512} for number in range(len(stages))]
    strategy = {"name": "cascade", "stages": list(stages), "show_tried": show_tried}
    return job(job_id, strategy, stages=pins, **request)


def judged_elsewhere(admitted: AdmittedJob, *tasks: tuple[int, str]) -> AdmittedJob:
    """Returns the job with steps for another model, each a task behind a stage of this number."""
    own = {"model": "model-0", "fingerprint": "f", "context_length": 512}
    steps = list(admitted.request.get("stages") or [own])
    for stage, task in reversed(tasks):
        steps.insert(stage + 1, {"model": "judge", "fingerprint": "f", "context_length": 512, "task": task})
    return replace(admitted, request=admitted.request | {"stages": steps})


def stage(accept: Document | None = None, budget: Document | None = None, **strategy: Any) -> Document:
    return {"strategy": {"name": "direct"} | strategy, "budget": budget or {}, "accept": accept}


def never_accepted(admitted: AdmittedJob) -> dict[str, float]:
    """Returns sums by which the first of two stages wastes as much as the second takes."""
    scope, sums = lesson_scope(admitted.request, ""), {"num": 1e6, "accepted": 0.0, "work": 1e12}
    return {
        f"{scope}:stage{number}.{group}.{name}": value
        for number in range(2)
        for group in routing.groups(admitted.request)
        for name, value in sums.items()
    }


def run(
    process: Process, admitted: AdmittedJob, learned: dict[str, dict[str, float]] | None = None
) -> tuple[JobResult, list[Document]]:
    """Runs a job to its end, as the parents of one worker after the other would."""
    deltas: list[Document] = []
    while True:
        process.send(Admit((replace(admitted, deltas=tuple(deltas)),), learned or {}))
        while True:
            report = process.report()
            deltas += [delta for job_id, delta in report.deltas.items() if job_id == admitted.job_id]
            if report.results:
                return report.results[0], deltas
            if report.handed_on:
                assert report.num_jobs == 0
                break


def test_an_answer_that_is_not_accepted_goes_on_and_the_next_stage_answers(shared_process: Process) -> None:
    result, deltas = run(shared_process, cascade(1, stage(NEVER), stage(name="best_of_n", n=3)))
    assert result.error is None
    first, second = result.tree["stages"]
    assert result.tree["answered_by"] == 1
    assert first["decisions"]["accept"].keys() == {"by", "accepted", "probability", "threshold"}
    assert not first["decisions"]["accept"]["accepted"]
    assert (first["model"], second["model"], second["strategy"]) == ("model-0", "model-1", "best_of_n")
    assert len(second["nodes"]) > len(first["nodes"])
    num_made = sum(node["tokens"] for tree in (first, second) for node in tree["nodes"])
    assert result.usage.completion_tokens == num_made
    num_told = sum(len(row.get("ids", ())) for delta in deltas for row in delta["nodes"] if row["node"])
    assert num_told == num_made, "every token is in a delta, once"
    assert {delta["step"] for delta in deltas} == {0, 1}
    assert result.usage.prompt_tokens > 20, "both models read the prompt"
    chosen = second["candidates"][second["chosen"]]
    assert result.choices[0].answer == chosen["answer"]


def test_an_accepted_answer_is_the_jobs_answer_and_no_other_model_is_asked(shared_process: Process) -> None:
    ended = {"stop": ["a", "e", "t", "1", " "]}
    accepted = 0
    for number in range(2, 8):
        admitted = cascade(number, stage(SURE, name="self_consistency", n=2), stage(), sampling=ended)
        result, _ = run(shared_process, admitted)
        decision = result.tree["stages"][0]["decisions"]["accept"]
        assert len(result.tree["stages"]) == (1 if decision["accepted"] else 2)
        accepted += decision["accepted"]
    assert accepted


def test_the_budget_is_one_for_all_stages_and_a_stages_own_is_within_it(shared_process: Process) -> None:
    long = {"max_tokens": None}
    stages = (stage(NEVER, {"tokens": 10}), stage(NEVER, {"tokens": 30}), stage(name="self_consistency", n=8))
    result, _ = run(shared_process, cascade(10, *stages, budget={"tokens": 25}, sampling=long))
    made = [sum(node["tokens"] for node in tree["nodes"]) for tree in result.tree["stages"]]
    assert made[0] <= 10
    assert 10 < sum(made) <= 25
    assert result.usage.completion_tokens == sum(made)
    assert result.error is None


def test_a_stage_that_cannot_run_goes_on_and_a_last_one_that_cannot_leaves_the_former_answer(
    shared_process: Process,
) -> None:
    impossible = stage(NEVER, name="best_of_n", n=2) | {"budget": {"tokens": 1}}
    whole = {"tokens_per_sample": 8}
    result, _ = run(shared_process, cascade(11, impossible, stage(), budget=whole))
    assert result.error is None
    result, _ = run(shared_process, cascade(12, stage(NEVER), stage(name="refine")))
    assert result.error is None, "refine may ask no verifier here"
    assert result.tree["answered_by"] == 0
    result, _ = run(shared_process, cascade(13, stage(NEVER, name="refine"), stage(name="refine")))
    assert error_of(result).code == "no_verifier"


def test_stages_of_one_model_do_not_repeat_each_others_samples(shared_process: Process) -> None:
    result, _ = run(shared_process, cascade(14, stage(NEVER), stage(), sampling={"seed": 3}))
    first, second = (tree["nodes"][1]["ids"] for tree in result.tree["stages"])
    assert first != second


def test_what_was_tried_is_shown_to_the_next_stage_where_the_user_wants_that(shared_process: Process) -> None:
    hidden, _ = run(shared_process, cascade(15, stage(NEVER), stage()))
    shown, _ = run(shared_process, cascade(16, stage(NEVER), stage(), show_tried=True))
    assert shown.usage.prompt_tokens > hidden.usage.prompt_tokens + 20


def test_a_resumed_stage_decides_as_it_had_decided(shared_process: Process) -> None:
    """A worker that dies after it has told its decision, and before it could hand the job on."""
    told = {"step": 0, "nodes": [], "decisions": {"accept": {"accepted": True, "by": "reward", "probability": 0.0}}}
    admitted = replace(cascade(17, stage(NEVER), stage()), deltas=(told,))
    shared_process.admit(admitted)
    (result,) = shared_process.finish(1)[0].values()
    assert len(result.tree["stages"]) == 1


@pytest.mark.parametrize("seed", range(4))
def test_a_cascade_that_is_interrupted_anywhere_makes_no_token_twice(shared_process: Process, seed: int) -> None:
    draw = Random(seed)
    stages = (stage(NEVER, name="best_of_n", n=3), stage(JUDGE), stage(name="best_of_n", n=2))
    admitted = cascade(30 + seed, *stages, verifier=VERIFIER, sampling={"stop": ["q"]})
    admitted = judged_elsewhere(admitted, (1, "accept"), (2, "verify"))
    deltas: list[Document] = []
    results: list[JobResult] = []
    while not results:
        shared_process.admit(replace(admitted, deltas=tuple(deltas)))
        for _ in range(draw.randint(1, 6)):
            time.sleep(draw.random() * 0.02)
            report = shared_process.report()
            # What a worker reports together is saved together.
            deltas += [delta for job_id, delta in report.deltas.items() if job_id == admitted.job_id]
            results += [result for result in report.results if result.job_id == admitted.job_id]
            if report.handed_on:
                break
        shared_process.send(Drop((admitted.job_id,)))
    (result,) = results
    stages = result.tree["stages"]
    told: dict[tuple[int, int], list[int]] = {}
    for delta in deltas:
        for row in delta["nodes"]:
            if row["node"]:
                told.setdefault((delta["step"], row["node"]), []).extend(row.get("ids", ()))
    made = {(tree["step"], index): node["ids"] for tree in stages for index, node in enumerate(tree["nodes"])}
    assert {place: ids for place, ids in told.items() if made[place]} == {
        place: ids for place, ids in made.items() if ids and place[1]
    }
    assert result.usage.completion_tokens == sum(map(len, made.values()))
    assert [len(tree["nodes"]) for tree in stages if tree["task"] == "solve"] == [4, 2, 3]
    assert [tree["task"] for tree in stages] == ["solve", "solve", "accept", "solve", "verify"]


JUDGE = {"by": "judge", "n": 2, "max_tokens": 6}
VERIFIER = {"name": "judge", "n": 2, "max_tokens": 6}


def tasks_of(result: JobResult) -> list[tuple[int, str, str]]:
    return [(tree["stage"], tree["task"], tree["model"]) for tree in result.tree["stages"]]


def test_another_model_judges_a_stage_between_it_and_the_next(shared_process: Process) -> None:
    """The random model says nothing that can be read, so nothing is accepted."""
    admitted = judged_elsewhere(cascade(70, stage(JUDGE), stage(), sampling={"stop": ["a", "e", " "]}), (0, "accept"))
    whole = 0
    for number in range(70, 76):
        result, deltas = run(shared_process, replace(admitted, job_id=number))
        assert tasks_of(result) == [(0, "solve", "model-0"), (0, "accept", "judge"), (1, "solve", "model-1")]
        assert result.tree["answered_by"] in (0, 2)
        first, judged, _ = result.tree["stages"]
        assert "accept" not in first["decisions"]
        decision = judged["decisions"]["accept"]
        is_asked = bool(sum(decision["votes"]))
        assert decision == {"by": "judge", "accepted": False, "votes": [0, 0, 2 if is_asked else 0]}
        whole += is_asked
        num_said = sum(node["tokens"] for node in judged["nodes"])
        assert result.usage.judge_tokens == num_said <= 2 * 6
        assert result.usage.completion_tokens == sum(
            node["tokens"] for tree in result.tree["stages"] for node in tree["nodes"]
        )
        scope = f"{lesson_scope(admitted.request, '')}:stage0.all"
        assert result.learned[f"{scope}.num"] == 1
        assert result.learned[f"{scope}.accepted"] == 0
        solved, _ = told = [delta for delta in deltas if "result" in delta]
        assert [delta["step"] for delta in told] == [0, 1]
        is_work = result.learned[f"{scope}.work"] > solved["result"]["learned"][f"{scope}.work"]
        assert is_work == is_asked, "what the judge reads and says is work that a skipped stage saves"
    assert whole


def test_what_a_judge_accepted_is_the_answer_and_is_verified_by_another(shared_process: Process) -> None:
    """A worker that dies after the judge has decided."""
    admitted = cascade(76, stage(JUDGE), stage(), verifier=VERIFIER)
    admitted = judged_elsewhere(admitted, (0, "accept"), (1, "verify"))
    deltas: list[Document] = []
    shared_process.admit(admitted)
    while not (report := shared_process.report()).handed_on:
        deltas += report.deltas.values()
    deltas += report.deltas.values()
    told = {"step": 1, "nodes": [], "decisions": {"accept": {"by": "judge", "accepted": True, "votes": [2, 0, 0]}}}
    shared_process.admit(replace(admitted, deltas=(*deltas, told)))
    while not (report := shared_process.report()).handed_on:
        deltas += report.deltas.values()
    shared_process.admit(replace(admitted, deltas=(*deltas, told, *report.deltas.values())))
    (result,) = shared_process.finish(1)[0].values()
    assert tasks_of(result) == [(0, "solve", "model-0"), (0, "accept", "judge"), (1, "verify", "judge")]
    assert result.tree["answered_by"] == 0
    assert result.judged is None
    assert result.learned[f"{lesson_scope(admitted.request, '')}:stage0.all.accepted"] == 1


def test_another_model_verifies_a_job_that_is_no_cascade(shared_process: Process) -> None:
    admitted = judged_elsewhere(job(77, {"name": "best_of_n", "n": 3}, n=2, verifier=VERIFIER), (0, "verify"))
    result, _ = run(shared_process, admitted)
    assert tasks_of(result) == [(0, "solve", "model-0"), (0, "verify", "judge")]
    assert (result.error, result.judged, len(result.choices)) == (None, None, 2)
    assert result.tree["stages"][1]["decisions"]["verdict"]["votes"] == [0, 0, 2]
    assert {name.partition(":")[2] for name in result.learned} == set()


def test_another_model_chooses_among_the_candidates(shared_process: Process) -> None:
    strategy = {"name": "best_of_n", "n": 4, "select": "tournament", "judge": {"max_tokens": 6}, "early_stopping": None}
    admitted = judged_elsewhere(job(78, strategy, sampling={"stop": ["a", "e", " "]}), (0, "select"))
    result, deltas = run(shared_process, admitted)
    assert tasks_of(result) == [(0, "solve", "model-0"), (0, "select", "judge")]
    made, judged = result.tree["stages"]
    assert sorted(judged["decisions"]["select"]["order"]) == [0, 1, 2, 3]
    assert len(made["candidates"]) == 4
    assert len(result.choices) == 1
    assert result.choices[0].answer == made["candidates"][0]["answer"]
    told = [delta["result"]["choices"] for delta in deltas if "result" in delta]
    assert [len(choices) for choices in told] == [4], "the judge reads all of them"


def test_the_order_of_another_model_is_that_of_the_choices(shared_process: Process) -> None:
    strategy = {"name": "best_of_n", "n": 3, "select": "genselect", "judge": {"max_tokens": 6}, "early_stopping": None}
    admitted = judged_elsewhere(job(79, strategy, n=2), (0, "select"))
    deltas: list[Document] = []
    shared_process.admit(admitted)
    while not (report := shared_process.report()).handed_on:
        deltas += report.deltas.values()
    deltas += report.deltas.values()
    before = deltas[-1]["result"]["choices"]
    told = {"step": 1, "nodes": [], "decisions": {"select": {"by": "genselect", "order": [2, 0, 1], "matches": []}}}
    shared_process.admit(replace(admitted, deltas=(*deltas, told)))
    (result,) = shared_process.finish(1)[0].values()
    assert [choice.text for choice in result.choices] == [before[2]["text"], before[0]["text"]]


def test_where_the_last_stage_fails_the_answer_of_a_former_one_is_verified_all_the_same(
    shared_process: Process,
) -> None:
    admitted = judged_elsewhere(cascade(83, stage(NEVER), stage(name="refine"), verifier=VERIFIER), (1, "verify"))
    result, _ = run(shared_process, admitted)
    assert tasks_of(result) == [(0, "solve", "model-0"), (1, "solve", "model-1"), (1, "verify", "judge")]
    assert (result.error, result.tree["answered_by"]) == (None, 0)
    assert sum(result.tree["stages"][2]["decisions"]["verdict"]["votes"]) == 2
    alone = judged_elsewhere(job(84, {"name": "refine"}, verifier=VERIFIER), (0, "verify"))
    result, _ = run(shared_process, alone)
    assert error_of(result).code == "no_verifier"


CHOSEN = {"name": "best_of_n", "n": 2, "select": "tournament"}


def chosen_and_refused(**changes: Any) -> tuple[AdmittedJob, list[Document]]:
    """Returns a cascade whose first stage another model has judged: it prefers the second sample, and refuses it."""
    admitted = cascade(81, {"strategy": CHOSEN, "accept": JUDGE}, stage(), **changes)
    admitted = judged_elsewhere(admitted, (0, "select"), (0, "accept"))
    decisions = [
        {},
        {"select": {"by": "tournament", "order": [1, 0], "matches": []}},
        {"accept": {"by": "judge", "accepted": False, "votes": [0, 2, 0]}},
    ]
    tasks = ["solve", "select", "accept"]
    deltas = [ended(number, 0, tasks[number], told) for number, told in enumerate(decisions)]
    deltas[0]["result"] |= {"choices": [choice("first"), choice("second")]}
    deltas[0]["result"]["tree"]["candidates"] = [{"node": 1, "answer": "1"}, {"node": 2, "answer": "2"}]
    return admitted, deltas


def ended(number: int, stage: int, task: str, decisions: Document) -> Document:
    """Returns the last delta of a step."""
    tree: Document = {"step": number, "stage": stage, "task": task, "decisions": decisions, "nodes": [{}, {}, {}]}
    result = asdict(JobResult(81, tree=tree))
    return {"step": number, "nodes": [], "result": result, "next": number + 1}


def choice(text: str) -> Document:
    return asdict(Choice(text, text, "stop", None))


def test_the_choice_of_another_model_is_about_its_own_stage_whatever_later_ones_answer() -> None:
    admitted, deltas = chosen_and_refused()
    step = JobStage.of(admitted.request, deltas)
    last = RESULT.validate_python(ended(3, 1, "solve", {})["result"] | {"choices": [choice("third")]})
    last.tree["candidates"] = [{"node": 1, "answer": "3"}]
    result = step.whole_result(last, None)
    assert [choice.text for choice in result.choices] == ["third"]
    assert [one["answer"] for one in result.tree["stages"][0]["candidates"]] == ["2", "1"]


def test_the_next_stage_is_shown_what_the_judge_has_chosen() -> None:
    admitted, deltas = chosen_and_refused(show_tried=True)
    messages = JobStage.of(admitted.request, deltas).request["messages"]
    assert [message["content"] for message in messages if message["role"] == "assistant"] == ["second"]


def test_what_a_worker_without_steps_handed_on_is_read_as_a_stage() -> None:
    told = ended(0, 0, "solve", {"accept": {"accepted": False}})
    told["result"]["choices"] = [choice("first")]
    for name in ("step", "stage", "task"):
        del told["result"]["tree"][name]
    del told["next"]
    step = JobStage.of(cascade(82, stage(SURE), stage()).request, [told])
    assert (step.number, step.task) == (1, "solve")
    last = RESULT.validate_python(ended(1, 1, "solve", {})["result"])
    assert [choice.text for choice in step.whole_result(last, None).choices] == ["first"]


def test_a_judge_that_is_over_before_it_begins_leaves_the_answer_as_it_is(shared_process: Process) -> None:
    admitted = judged_elsewhere(job(80, {"name": "direct"}, verifier=VERIFIER), (0, "verify"))
    deltas: list[Document] = []
    shared_process.admit(admitted)
    while not (report := shared_process.report()).handed_on:
        deltas += report.deltas.values()
    deltas += report.deltas.values()
    shared_process.admit(replace(admitted, deltas=(*deltas, {"ended": "deadline"})))
    (result,) = shared_process.finish(1)[0].values()
    assert (result.error, result.finish_reason, result.judged) == (None, "deadline", None)
    assert result.choices


def test_adaptive_stages_learn_each_for_itself(shared_process: Process) -> None:
    stages = (stage(NEVER, name="adaptive", n=2), stage(name="adaptive", n=2))
    result, _ = run(shared_process, cascade(18, *stages))
    assert {name.partition(":")[2].partition(".")[0] for name in result.learned} == {"stage0", "stage1"}


def test_a_stage_that_never_pays_is_skipped_before_it_computes_anything(shared_process: Process) -> None:
    admitted = cascade(20, stage(NEVER), stage(), batch_id="hopeless")
    learned = never_accepted(admitted)
    skipped = []
    for number in range(20, 30):
        one = replace(admitted, job_id=number)
        result, deltas = run(shared_process, one, {"hopeless": learned})
        first = result.tree["stages"][0]
        skipped.append(first["decisions"]["route"]["skipped"])
        assert (len(first["nodes"]) == 1) == skipped[-1]
        assert next(delta["decisions"] for delta in deltas if "decisions" in delta).keys() >= {"route"}
        assert result.tree["answered_by"] == 1
    assert sum(skipped) >= 8


def unsure_never_accepted(admitted: AdmittedJob) -> dict[str, float]:
    """Returns sums by which the first stage is worth beginning, but not going on with, however sure it is."""
    scope, names = lesson_scope(admitted.request, ""), routing.groups(admitted.request)
    all_accepted = {"num": 1e6, "accepted": 1e6, "work": 1e12}
    sums = {f"stage{number}.{group}": all_accepted for number in range(2) for group in names}
    for confidence in range(8):
        sums[f"stage0.{names[-1]} confidence {confidence}"] = {"num": 1e6, "accepted": 0.0, "work": 1e12}
    return {f"{scope}:{group}.{name}": value for group, own in sums.items() for name, value in own.items()}


def test_a_stage_whose_first_tokens_show_that_it_never_pays_ends_there(shared_process: Process) -> None:
    admitted = cascade(60, stage(NEVER, name="best_of_n", n=3), stage(), batch_id="unsure", sampling={"min_tokens": 20})
    learned = unsure_never_accepted(admitted)
    num_ended = 0
    for number in range(60, 68):
        result, deltas = run(shared_process, replace(admitted, job_id=number), {"unsure": learned})
        first = result.tree["stages"][0]
        route = first["decisions"]["route"]
        assert 0 < route["confidence"] < 1
        num_ended += route["skipped"]
        if route["skipped"]:
            assert {node["stop"] for node in first["nodes"][1:]} == {"routed"}
            assert routing.FIRST_TOKENS <= first["nodes"][1]["tokens"] < 20
            assert "accept" not in first["decisions"]
        else:  # a few are tried whatever was learnt, and teach what such a beginning is worth
            taught = [name for name in result.learned if ".num" in name and "confidence" in name]
            assert len(taught) == 1
        assert result.tree["answered_by"] == 1
        assert result.error is None
        num_told = sum(len(row.get("ids", ())) for delta in deltas for row in delta["nodes"] if row["node"])
        made = sum(node["tokens"] for tree in result.tree["stages"] for node in tree["nodes"])
        assert num_told == made == result.usage.completion_tokens
    assert num_ended >= 6


def test_the_next_models_answer_teaches_the_batch_what_a_measure_is_worth(shared_process: Process) -> None:
    learning = {"by": "agreement", "threshold": 1.0, "learn": True}
    ended = {"stop": ["a", "e", "t", "1", " "]}
    taught = 0
    for number in range(40, 46):
        admitted = cascade(number, stage(learning, name="self_consistency", n=2), stage(), sampling=ended)
        result, _ = run(shared_process, admitted)
        decision = result.tree["stages"][0]["decisions"]["accept"]
        scope = f"{lesson_scope(admitted.request, '')}:stage0.{decision['place']}"
        is_known = result.tree["answered_by"] == 1 and result.choices[0].finish_reason == "stop"
        assert (result.learned.get(f"{scope}.num") == 1) == is_known
        taught += is_known
    assert taught


def test_jobs_whose_verdicts_may_see_a_reference_teach_nothing(shared_process: Process) -> None:
    result, _ = run(shared_process, cascade(50, stage(NEVER), stage(), oracle=True))
    assert result.learned == {}


def test_a_job_that_is_over_before_it_begins_skips_no_stage_and_says_what_ended_it(shared_process: Process) -> None:
    admitted = cascade(51, stage(NEVER), stage(), batch_id="hopeless")
    ended = replace(admitted, deltas=({"ended": "deadline"},))
    shared_process.send(Admit((ended,), {"hopeless": never_accepted(admitted)}))
    (result,) = shared_process.finish(1)[0].values()
    assert error_of(result).code == "nothing_made"
    assert "deadline" in error_of(result).message


def test_a_later_stage_that_is_over_before_it_begins_leaves_the_former_answer(shared_process: Process) -> None:
    admitted = cascade(52, stage(NEVER), stage())
    shared_process.admit(admitted)
    deltas: list[Document] = []
    while not (report := shared_process.report()).handed_on:
        deltas += report.deltas.values()
    deltas += report.deltas.values()
    shared_process.admit(replace(admitted, deltas=(*deltas, {"ended": "deadline"})))
    (result,) = shared_process.finish(1)[0].values()
    assert (result.error, result.finish_reason, result.tree["answered_by"]) == (None, "deadline", 0)
    assert result.choices


def test_a_text_that_a_reward_model_accepts_fits_into_its_context(
    tiny_llama: Path, reward_llama: Path, tmp_path: Path
) -> None:
    folder = shutil.copytree(reward_llama, tmp_path / "short")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"max_position_embeddings": 64}))
    process = Process(model=str(tiny_llama), reward_model=str(folder), num_threads=1, kv_bytes=1 << 22)
    admitted = cascade(60, stage(NEVER), stage(), sampling={"max_tokens": None})
    process.admit(admitted)
    while not (report := process.report()).handed_on:
        time.sleep(0.02)
    process.close()
    (ended,) = [delta["result"]["tree"] for delta in report.deltas.values()]
    assert "error" not in ended["decisions"]["accept"]
    assert "probability" in ended["decisions"]["accept"]
