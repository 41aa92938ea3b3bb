"""A reward model is calibrated on a batch of other problems, and on nothing else."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ponder.domain.batch.calibration import Calibration, prompt_hash
from ponder.domain.batch.options import BatchOptions
from ponder.domain.batch.request import ServedModel, Terms, parse
from ponder.domain.state import Verdict
from ponder.errors import InvalidInput, InvalidLine
from ponder.jobs.validation import calibrate as calibrate_module
from ponder.jobs.validation.calibrate import calibrate


def _options(batch: str, **accept: Any) -> BatchOptions:
    reward = {"by": "reward", "threshold": 0.6, "calibrated_on": batch} | accept
    stages = [{"model": "demo", "strategy": "best_of_n", "accept": reward}, {"model": "large"}]
    return BatchOptions.model_validate({"strategy": {"name": "cascade", "stages": stages}})


def _judged(world: Any, num_jobs: int = 200) -> tuple[str, str]:
    """Returns a tenant, and its batch whose reward model promises twice of what it keeps."""
    tenant, worker, draw = world.tenant(), world.worker(room_tokens=100_000), Random(1)
    batch = world.batch(num_jobs, tenant=tenant, strategy="best_of_n")
    settled = []
    for job in world.claim_all(worker):
        probability = draw.random()
        choice = {"text": "2", "finish_reason": "stop", "score": math.log(probability)}
        verdict = Verdict.PASSED if draw.random() < probability / 2 else Verdict.FAILED
        settled.append(replace(world.passed(job), verdict=verdict, choices=(choice,)))
    world.tick(worker, settled=settled)
    return tenant, batch


def _line(text: str, **ponder: Any) -> dict[str, Any]:
    body = {"model": "demo", "messages": [{"role": "user", "content": text}]} | ({"ponder": ponder} if ponder else {})
    return {"custom_id": "a", "method": "POST", "url": "/v1/chat/completions", "body": body}


def test_every_prompt_of_the_named_batch_is_known_however_many_are_read_at_a_time(
    world: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(calibrate_module, "_LINES", 7)
    tenant, batch = _judged(world, num_jobs=40)
    world.sql(
        """UPDATE jobs SET line = 100000 * line, request = jsonb_set(request, '{messages}', to_jsonb(line))
           WHERE batch_id = :id""",
        id=batch,
    )
    with world.engine.begin() as connection:
        prompts = calibrate(connection, tenant, _options(batch)).prompts
    assert prompts == {prompt_hash(line) for line in range(1, 41)}


def test_a_probability_is_worth_what_it_was_in_the_named_batch_and_its_problems_are_refused(world: Any) -> None:
    tenant, batch = _judged(world)
    options = _options(batch)
    with world.engine.begin() as connection:
        calibrations = calibrate(connection, tenant, options)
    made = calibrations.by_stage[0]
    assert made.num_jobs == 200
    assert made.chance(0.9) < 0.8
    assert made.chance(0.5) < 0.4

    models = {name: ServedModel(name, "f1", 512, has_reward_model=True) for name in ("demo", "large")}
    terms = Terms(options, models, calibrations=calibrations)
    pins = json.loads(json.dumps(parse(_line("2 + 2?"), 1, terms).document["stages"]))
    assert Calibration.read(pins[0]["calibration"]) == made
    assert "calibration" not in pins[1]
    with pytest.raises(InvalidLine) as caught:
        parse(_line("1 + 1?"), 1, terms)
    assert (caught.value.param, caught.value.code) == ("body.messages", "calibrated_on_itself")
    with pytest.raises(InvalidLine, match="only the strategy of a whole batch"):
        parse(_line("2 + 2?", strategy=options.model_dump(exclude_unset=True)["strategy"]), 1, terms)
    parse(_line("1 + 1?", strategy="direct"), 1, terms)


def test_what_a_model_says_of_an_answer_calibrates_nothing_but_what_the_reference_says_of_it_does(world: Any) -> None:
    tenant, batch = _judged(world)
    with world.engine.begin() as connection:
        made = calibrate(connection, tenant, _options(batch)).by_stage[0]
    world.sql("UPDATE jobs SET judged = true, checked = verdict, verdict = 'passed'")
    with world.engine.begin() as connection:
        assert calibrate(connection, tenant, _options(batch)).by_stage[0] == made
    world.sql("UPDATE jobs SET checked = NULL")
    with world.engine.begin() as connection, pytest.raises(InvalidInput, match="has 0 answers of demo"):
        calibrate(connection, tenant, _options(batch))


def test_a_batch_of_somebody_else_or_of_other_weights_calibrates_nothing(world: Any) -> None:
    tenant, batch = _judged(world)
    world.worker(fingerprint="f2")
    for asking, named, says in (
        (world.tenant(), batch, "there is no batch"),
        (tenant, "batch_x", "there is no batch"),
        (tenant, batch, "has 0 answers of demo"),
    ):
        with world.engine.begin() as connection, pytest.raises(InvalidInput, match=says) as caught:
            calibrate(connection, asking, _options(named))
        assert caught.value.param == "ponder.strategy.stages[0].accept.calibrated_on"


def test_a_batch_whose_results_have_expired_calibrates_nothing(world: Any) -> None:
    tenant, batch = _judged(world, num_jobs=40)
    world.finish()
    world.sql(
        "UPDATE batches SET output_expires_after_s = 60, completed_at = now() - interval '61 seconds' WHERE id = :id",
        id=batch,
    )
    with world.engine.begin() as connection, pytest.raises(InvalidInput, match=r"results of .* are deleted"):
        calibrate(connection, tenant, _options(batch))


@given(st.lists(st.tuples(st.floats(0, 1), st.booleans()), min_size=1, max_size=60))
def test_a_higher_probability_is_never_worth_less(judged: list[tuple[float, bool]]) -> None:
    made = Calibration.of("batch", judged)
    chances = [made.chance(probability / 20) for probability in range(21)]
    assert chances == sorted(chances)
    assert all(0 < chance < 1 for chance in chances)
    assert made.num_jobs == len(judged)
    assert len(made.steps) <= 101
