"""A cascade is checked stage by stage at submission, and pinned to the weights of each of its models."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from ponder.domain.batch.cell import Cell
from ponder.domain.batch.options import BatchOptions
from ponder.domain.batch.refusal import explain
from ponder.domain.batch.request import JobRequest, ServedModel, Terms, parse
from ponder.domain.batch.stages import Pin, Task, next_step, pins, stage_request
from ponder.domain.budget import most_tokens
from ponder.errors import InvalidLine

SMALL = ServedModel("small", "f0", 512, has_reward_model=True)
LARGE = ServedModel("large", "f1", 2048, has_reward_model=False)
VOTES = {"strategy": {"name": "self_consistency", "n": 4}, "accept": {"by": "agreement", "threshold": 0.75}}


def line(*stages: dict[str, Any], url: str = "/v1/chat/completions", **body: Any) -> JobRequest:
    prompt = {"messages": [{"role": "user", "content": "1 + 1?"}]} if "chat" in url else {"prompt": [1, 2]}
    show_tried = body.pop("show_tried", False)
    ponder = {"strategy": {"name": "cascade", "stages": stages, "show_tried": show_tried}} | body.pop("ponder", {})
    value = {"custom_id": "a", "method": "POST", "url": url}
    terms = Terms(BatchOptions(), {"small": SMALL, "large": LARGE}, endpoint=url)  # type: ignore[arg-type]
    return parse(value | {"body": {"model": "small"} | prompt | body | {"ponder": ponder}}, 1, terms)


def test_every_stage_is_pinned_and_the_first_takes_the_lines_model() -> None:
    made = line(VOTES, {"model": "large", "strategy": "direct", "budget": 300})
    assert made.model is SMALL
    assert made.strategy == "cascade"
    assert made.document["stages"] == [
        {"model": "small", "fingerprint": "f0", "context_length": 512},
        {"model": "large", "fingerprint": "f1", "context_length": 2048},
    ]
    assert line(VOTES | {"model": "large"}, {"model": "small"}).model is LARGE, "a stage's own model goes first"


@pytest.mark.parametrize(
    ("stages", "param", "code", "says"),
    [
        ([VOTES], "strategy.stages", "invalid_value", "at least 2"),
        ([VOTES, {}], "strategy.stages", "invalid_value", "stage 1 names no model"),
        ([{}, {"model": "large"}], "strategy.stages", "invalid_value", "stage 0 does not say"),
        ([VOTES, {"model": "large"} | VOTES], "strategy.stages", "invalid_value", "stage 1 is the last"),
        (
            [{"accept": {"by": "agreement"}}, {"model": "large"}],
            "strategy.stages",
            "invalid_value",
            "direct makes a single sample",
        ),
        ([VOTES | {"accept": {"by": "guess"}}, {"model": "large"}], "strategy.stages[0].accept", "invalid_value", "by"),
        (
            [VOTES | {"accept": {"by": "agreement", "threshold": 2}}, {"model": "large"}],
            "strategy.stages[0].accept.threshold",
            "invalid_value",
            "less than or equal to 1",
        ),
        (
            [VOTES, {"model": "large", "strategy": {"name": "cascade"}}],
            "strategy.stages[1].strategy",
            "invalid_value",
            "cascade",
        ),
        ([VOTES, {"model": "large", "budget": 0}], "strategy.stages[1].budget.tokens", "invalid_budget", "greater"),
    ],
)
def test_a_malformed_stage_is_refused_by_its_place(
    stages: list[dict[str, Any]], param: str, code: str, says: str
) -> None:
    with pytest.raises(ValidationError) as caught:
        BatchOptions.model_validate({"strategy": {"name": "cascade", "stages": stages}})
    refused = explain(caught.value)
    assert (refused.param, refused.code) == (param, code)
    assert says in refused.message


@pytest.mark.parametrize(
    ("stages", "param", "code"),
    [
        ([VOTES, {"model": "huge"}], "stages[1].model", "model_not_found"),
        ([VOTES, {"model": "large", "strategy": "best_of_n"}], "stages[1].strategy", "no_reward_model"),
        (
            [VOTES | {"model": "large", "accept": {"by": "reward"}}, {"model": "small"}],
            "stages[0].accept",
            "no_reward_model",
        ),
    ],
)
def test_what_the_served_models_cannot_do_is_refused(stages: list[dict[str, Any]], param: str, code: str) -> None:
    with pytest.raises(InvalidLine) as caught:
        line(*stages)
    assert (caught.value.param, caught.value.code) == (f"body.ponder.strategy.{param}", code)


def test_only_a_verifier_that_may_be_asked_accepts() -> None:
    stages = ({"accept": {"by": "verifier"}}, {"model": "large"})
    with pytest.raises(InvalidLine, match="sees the reference"):
        line(*stages, ponder={"reference": "2", "verifier": "exact"})
    assert line(*stages, ponder={"reference": "2", "verifier": "exact", "oracle": True}).oracle
    line(*stages, ponder={"verifier": {"name": "regex", "pattern": "2"}})


@pytest.mark.parametrize(
    ("field", "body"),
    [
        ("logit_bias", {"logit_bias": {"5": 1.0}}),
        ("prompt", {"url": "/v1/completions"}),
        ("ponder.strategy", {"url": "/v1/completions", "show_tried": True, "prompt": "1 + 1 ="}),
    ],
)
def test_what_only_one_of_the_models_could_read_is_refused(field: str, body: dict[str, Any]) -> None:
    with pytest.raises(InvalidLine) as caught:
        line(VOTES, {"model": "large"}, **body)
    assert caught.value.param == f"body.{field}"


def test_a_prompt_must_fit_into_the_context_of_every_model() -> None:
    with pytest.raises(InvalidLine, match="512 tokens of small's context"):
        line(VOTES | {"model": "large"}, {"model": "small"}, messages=[{"role": "user", "content": "x"}] * 600)


def test_a_cascade_generates_at_most_what_its_stages_do_or_its_own_limit() -> None:
    stages = (VOTES | {"budget": {"tokens": 60}}, {"model": "large", "budget": {"tokens_per_sample": 100}})
    assert most_tokens(line(*stages).document, 512) == 60 + 100
    assert most_tokens(line(VOTES, {"model": "large"}).document, 512) == 4 * 512 + 2048
    assert most_tokens(line(*stages, ponder={"budget": 70}).document, 512) == 70


def test_a_stage_has_the_tighter_of_its_own_limits_and_what_is_left_of_the_jobs() -> None:
    stages = (VOTES | {"budget": {"tokens": 60}}, {"model": "large", "budget": {"tokens_per_sample": 100}})
    document = line(*stages, ponder={"budget": {"tokens": 80, "tokens_per_sample": 50}}).document
    first, second = stage_request(document, 0), stage_request(document, 1, num_used=70)
    assert (first["budget"], first["strategy"]["name"]) == ({"tokens": 60, "tokens_per_sample": 50}, "self_consistency")
    assert second["budget"] == {"tokens": 10, "tokens_per_sample": 50}


def test_a_reasoning_effort_is_for_each_stage_whatever_the_former_ones_have_thought() -> None:
    document = line(VOTES, {"model": "large", "budget": {"tokens": 100}}, reasoning_effort="minimal").document
    assert stage_request(document, 0)["effort"] == {"thinking_tokens": 1024, "tokens": 1024}
    assert stage_request(document, 1, num_used=5_000)["effort"] == {"thinking_tokens": 1024, "tokens": 100}


def test_jobs_of_a_cascade_are_estimated_by_its_stages_models_and_budget() -> None:
    stages = (VOTES | {"budget": {"tokens_per_sample": 60}}, {"model": "large"})
    cell = Cell.of(line(*stages).document, 500)
    assert cell.strategy == "cascade: self_consistency n=4 early_stopping=beta on f0, direct on f1"
    assert cell.samples == 4.5
    assert cell.samples * cell.cap == 4 * 60 + 500 / 2
    capped = Cell.of(line(*stages, ponder={"budget": 90}).document, 500)
    assert capped.samples * capped.cap == pytest.approx(90)


def plain(strategy: dict[str, Any] | str, **ponder: Any) -> JobRequest:
    value = {"custom_id": "a", "method": "POST", "url": "/v1/chat/completions"}
    body = {"model": "small", "messages": [{"role": "user", "content": "1 + 1?"}]}
    terms = Terms(BatchOptions(), {"small": SMALL, "large": LARGE})
    return parse(value | {"body": body | {"ponder": {"strategy": strategy} | ponder}}, 1, terms)


def steps(made: JobRequest) -> list[tuple[str, Task, int]]:
    return [(pin.model, pin.task, pin.stage) for pin in pins(made.document)]


BY_LARGE = {"name": "judge", "model": "large"}
FORM = {"name": "regex", "pattern": "2"}
CHOSEN_BY_LARGE = {"name": "best_of_n", "n": 4, "select": "tournament", "judge": {"model": "large"}}


def test_another_model_that_judges_is_a_step_behind_what_it_judges() -> None:
    assert steps(plain("direct", verifier=BY_LARGE)) == [("small", "solve", 0), ("large", "verify", 0)]
    assert steps(plain(CHOSEN_BY_LARGE)) == [("small", "solve", 0), ("large", "select", 0)]
    accepted = {"accept": {"by": "judge", "model": "large"}}
    made = line(
        accepted, {"model": "large", "strategy": "direct"}, ponder={"verifier": {"name": "judge", "model": "small"}}
    )
    assert steps(made) == [("small", "solve", 0), ("large", "accept", 0), ("large", "solve", 1), ("small", "verify", 1)]
    assert made.document["stages"][1] == {
        "model": "large", "fingerprint": "f1", "context_length": 2048, "task": "accept"
    }  # fmt: skip


def test_a_model_that_judges_its_own_answers_needs_no_step() -> None:
    for verifier in ("judge", {"name": "judge", "model": "small"}):
        assert "stages" not in plain("direct", verifier=verifier).document
    chosen = CHOSEN_BY_LARGE | {"judge": {"model": "small"}}
    assert "stages" not in plain(chosen).document
    made = line({"accept": {"by": "judge"}}, {"model": "large"})
    assert steps(made) == [("small", "solve", 0), ("large", "solve", 1)]


@pytest.mark.parametrize(
    ("strategy", "ponder", "param", "code"),
    [
        ("direct", {"verifier": {"name": "judge", "model": "nobody"}}, "verifier.model", "model_not_found"),
        (CHOSEN_BY_LARGE | {"judge": {"model": "nobody"}}, {}, "strategy.judge.model", "model_not_found"),
        (CHOSEN_BY_LARGE, {"verifier": "judge"}, "verifier.model", "no_judge"),
        (CHOSEN_BY_LARGE, {"verifier": BY_LARGE}, "verifier", "judge_drives"),
        (CHOSEN_BY_LARGE, {"verifier": FORM, "max_rounds": 2}, "strategy.judge.model", "conflicting_judge"),
        (
            {"name": "cascade", "stages": [VOTES | {"strategy": CHOSEN_BY_LARGE}, {"model": "large"}]},
            {},
            "strategy.stages[0].strategy.judge.model",
            "conflicting_judge",
        ),
    ],
)  # fmt: skip
def test_a_judge_that_cannot_be_asked_is_refused_with_its_place(
    strategy: dict[str, Any] | str, ponder: dict[str, Any], param: str, code: str
) -> None:
    with pytest.raises(InvalidLine) as caught:
        plain(strategy, **ponder)
    assert (caught.value.param, caught.value.code) == (f"body.ponder.{param}", code)


def test_another_template_of_the_same_model_may_count_what_a_judge_has_chosen() -> None:
    other = {"name": "judge", "model": "large", "template": "{problem} Is it {answer}?"}
    assert steps(plain(CHOSEN_BY_LARGE, verifier=other)) == [
        ("small", "solve", 0), ("large", "select", 0), ("large", "verify", 0)
    ]  # fmt: skip


def test_a_prompt_of_token_ids_is_not_judged_by_another_model() -> None:
    terms = Terms(BatchOptions(), {"small": SMALL, "large": LARGE}, endpoint="/v1/completions")
    body = {"model": "small", "prompt": [1, 2], "ponder": {"verifier": BY_LARGE}}
    with pytest.raises(InvalidLine, match="token ids of one model") as caught:
        parse({"custom_id": "a", "method": "POST", "url": "/v1/completions", "body": body}, 1, terms)
    assert caught.value.param == "body.prompt"


def test_a_job_that_is_judged_elsewhere_has_the_length_of_one_that_is_not() -> None:
    judged, own = plain("direct", verifier=BY_LARGE), plain("direct", verifier="judge")
    assert most_tokens(judged.document, 512) == most_tokens(own.document, 512) == 512 + 512


def test_a_job_is_estimated_with_what_its_judges_say_and_alike_wherever_they_do() -> None:
    short = {"budget": {"tokens_per_sample": 20}}
    for model in ("small", "large"):
        judged = plain("direct", verifier={"name": "judge", "model": model, "max_tokens": 300}, **short).document
        cell = Cell.of(judged, 500)
        assert (cell.strategy, cell.samples, cell.cap) == ("direct judged=1", 1, 20 + 300)
        judge = {"model": model, "n": 2, "max_tokens": 50}
        chosen = Cell.of(plain(CHOSEN_BY_LARGE | {"judge": judge}, **short).document, 500)
        assert chosen.strategy == "best_of_n n=4 select=tournament early_stopping=beta judge_n=2"
        assert chosen.samples * chosen.cap == 4 * 20 + 3 * 2 * 50
        accept = {"accept": {"by": "judge", "model": model, "max_tokens": 100}}
        stages = Cell.of(line(accept, {"model": "large"}, ponder=short).document, 500)
        assert stages.strategy == "cascade: direct by judge on f0, direct on f1"
        assert stages.samples * stages.cap == 20 + 100 + 20 / 2


_TASKS = st.lists(st.sets(st.sampled_from(["select", "accept"])), min_size=1, max_size=4)


@given(_TASKS, st.booleans(), st.data())
def test_a_job_goes_through_its_steps_in_order_and_ends(
    judged: list[set[Task]], is_verified: bool, data: st.DataObject
) -> None:
    made: list[Pin] = []
    for stage, tasks in enumerate(judged):
        is_last = stage == len(judged) - 1
        wanted = ["select"] if "select" in tasks else []
        # Where candidates are chosen elsewhere, so is whether the chosen one is accepted; the last one always is.
        wanted += ["accept"] if tasks and not is_last else []
        made += [Pin("m", "f", 1, task=task, stage=stage) for task in ("solve", *wanted)]  # type: ignore[arg-type]
    if is_verified:
        made.append(Pin("m", "f", 1, task="verify", stage=len(judged) - 1))
    taken = [0]
    while True:
        step = made[taken[-1]]
        has_judge = any(one.stage == step.stage and one.task == "accept" for one in made)
        decides = step.stage < len(judged) - 1 and (step.task == "accept" or (step.task == "solve" and not has_judge))
        accepted = data.draw(st.booleans()) if decides else None
        following = next_step(made, taken[-1], accepted)
        if following is None:
            break
        assert following > taken[-1]
        if accepted is False:
            assert (made[following].task, made[following].stage) == ("solve", step.stage + 1)
        taken.append(following)
    tasks = [made[number].task for number in taken]
    assert tasks.count("verify") == is_verified
    for number in [number for number in taken if made[number].task != "verify"]:
        own = [made[one].task for one in taken if made[one].stage == made[number].stage and made[one].task != "verify"]
        assert own == [one.task for one in made if one.stage == made[number].stage and one.task != "verify"]


JUDGED: dict[str, Any] = {"strategy": "direct", "accept": {"by": "judge"}}
OWN = "Is {answer} right?"


def test_a_stage_can_be_accepted_by_a_judge() -> None:
    made = line(JUDGED, {"model": "large"})
    own = {"by": "judge", "model": None, "template": None, "n": 1, "max_tokens": 512}
    assert made.document["strategy"]["stages"][0]["accept"] == own
    line({"strategy": "direct", "accept": {"by": "judge", "model": "small"}}, {"model": "large"})


@pytest.mark.parametrize(
    ("accept", "verifier", "param", "code"),
    [
        ({"by": "judge", "template": "{problem}"}, None, "strategy.stages[0].accept.template", "invalid_value"),
        ({"by": "judge", "template": "{answers}"}, None, "strategy.stages[0].accept.template", "invalid_value"),
        ({"by": "judge"}, {"name": "judge"}, "verifier", "judge_drives"),
        ({"by": "judge", "template": OWN}, {"name": "judge", "template": OWN}, "verifier", "judge_drives"),
        ({"by": "verifier"}, {"name": "judge"}, "strategy", "no_verifier"),
    ],
)  # fmt: skip
def test_a_judge_of_a_stage_is_checked(
    accept: dict[str, Any], verifier: dict[str, Any] | None, param: str, code: str
) -> None:
    own = {} if verifier is None else {"verifier": verifier}
    with pytest.raises(InvalidLine) as caught:
        line({"strategy": "direct", "accept": accept}, {"model": "large"}, ponder=own)
    assert (caught.value.code, caught.value.param) == (code, f"body.ponder.{param}")


def test_what_judges_generate_is_a_part_of_the_most_that_a_job_does() -> None:
    small, large = 512, 2048
    assert most_tokens(line(JUDGED, {"model": "large"}).document, 512) == small + 512 + large
    judge = {"n": 2, "max_tokens": 10}
    contest = {"name": "best_of_n", "n": 4, "select": "genselect", "judge": judge | {"template": "{answers}"}}
    stage = {"strategy": contest, "accept": {"by": "judge", "template": "{answer}?"} | judge}
    counter = {"verifier": {"name": "judge", "max_tokens": 7}}
    document = line(stage, {"model": "large"}, ponder=counter).document
    assert most_tokens(document, 512) == 4 * small + 3 * 20 + 20 + large + 2 * 7
