"""The sampling fields of a request, obeyed by real engines with small random models, and by who resumes a job."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from ponder_worker.engine import Engine
from ponder_worker.engine_process.engine_core import EngineCore
from ponder_worker.engine_process.job import Job
from ponder_worker.engine_process.loading.engines import Engines
from ponder_worker.protocol import Document, JobResult

from ..searches import admitted, run

DIRECT = {"name": "direct"}
STEPS = {"name": "beam_search", "n": 1, "width": 1, "max_rounds": 40, "separator": "a"}
"""One path that grows by steps: greedily it is the text of one sample."""
END = 2


def made(
    engines: Engines, *, strategy: Document = DIRECT, seed: int = 1, deltas: Sequence[Document] = (), **sampling: Any
) -> JobResult:
    given = {"temperature": 1.0, "max_tokens": 40, "seed": seed, "stop": []} | sampling
    (result,) = run(EngineCore(engines, lambda: None), [admitted(7, strategy=strategy, sampling=given, deltas=deltas)])
    assert result.error is None
    return result


def ids_of(result: JobResult) -> list[int]:
    """The ids of the whole path, which is the only one."""
    return [token for node in result.tree["nodes"] for token in node["ids"]]


def greedy(engines: Engines, **sampling: Any) -> list[int]:
    return ids_of(made(engines, temperature=0.0, **sampling))


@pytest.mark.parametrize("filters", [{"top_k": 1}, {"min_p": 1.0}])
def test_the_narrowest_filters_leave_the_most_probable_token(engines: Engines, filters: dict[str, Any]) -> None:
    assert ids_of(made(engines, **filters)) == greedy(engines)
    assert ids_of(made(engines)) != greedy(engines)


def test_a_repetition_penalty_counts_the_prompt_and_what_was_generated(engines: Engines) -> None:
    penalised = greedy(engines, repetition_penalty=100.0)
    prompt = engines.generator.tokenizer.encode("Compute 1 + 1.")
    assert len({*penalised, *prompt}) == len(penalised) + len({*prompt})
    assert len({*greedy(engines)}) < len(greedy(engines))


@pytest.mark.parametrize(
    "sampling",
    [
        {"frequency_penalty": 2.0},
        {"presence_penalty": 2.0, "frequency_penalty": -0.5},
        {"repetition_penalty": 1.5},
        {"min_tokens": 30, "logit_bias": {str(END): 5.0}},
        {"min_tokens": 25, "stop": ["\n"], "logit_bias": {"198": 2.0}},
        {"min_tokens": 40},
    ],
)
def test_steps_count_the_tokens_of_the_steps_before_them(engines: Engines, sampling: dict[str, Any]) -> None:
    sampling["logit_bias"] = sampling.get("logit_bias", {}) | {str(engines.generator.tokenizer.encode("a")[0]): 3.0}
    whole, steps = (made(engines, temperature=0.0, strategy=strategy, **sampling) for strategy in (DIRECT, STEPS))
    assert len(steps.tree["nodes"]) > 3, "there is more than one step"
    assert ids_of(steps) == ids_of(whole)
    assert steps.choices[0].text == whole.choices[0].text


def test_a_stop_token_ends_the_text_before_it(engines: Engines) -> None:
    ids = greedy(engines)
    stop = ids[20]
    first = ids.index(stop)
    result = made(engines, temperature=0.0, stop_token_ids=[stop, 299])
    assert ids_of(result) == ids[: first + 1]
    assert result.choices[0].finish_reason == "stop"
    assert result.choices[0].text == engines.generator.tokenizer.decode(ids[:first])


def test_a_bias_forces_a_token_or_bans_it(engines: Engines) -> None:
    assert {*greedy(engines, logit_bias={"66": 100})} == {66}
    favourite = max(greedy(engines), key=greedy(engines).count)
    assert favourite not in greedy(engines, logit_bias={str(favourite): -100})


def test_the_models_end_can_be_ignored_and_put_off(engines: Engines) -> None:
    ends = {"logit_bias": {str(END): 100}}
    assert greedy(engines, **ends) == [END]
    ignored = made(engines, ignore_eos=True, **ends)
    assert ids_of(ignored) == [END] * 40
    assert ignored.choices[0].finish_reason == "length"
    late = made(engines, min_tokens=12, **ends)
    assert [token == END for token in ids_of(late)] == [False] * 12 + [True]
    assert late.choices[0].finish_reason == "stop"


def test_what_the_models_folder_says_holds_where_the_request_says_nothing(engines: Engines) -> None:
    careful = replace(engines, defaults=replace(engines.defaults, repetition_penalty=100.0, top_k=1, min_p=0.5))
    assert ids_of(made(careful)) == greedy(engines, repetition_penalty=100.0)
    assert ids_of(made(careful, repetition_penalty=1.0, top_k=0, min_p=0.0)) == ids_of(made(engines))


@pytest.mark.parametrize("strategy", [DIRECT, STEPS])
def test_the_likeliest_tokens_are_those_of_the_model_at_every_place(engines: Engines, strategy: Document) -> None:
    asked = {"logprobs": True, "top_logprobs": 3, "temperature": 0.0, "top_k": 5, "logit_bias": {"66": 1.0}}
    deltas: list[Document] = []

    def save(jobs: list[Job]) -> None:
        if (delta := jobs[0].delta()) is not None:
            deltas.append(json.loads(json.dumps(delta)))

    sampling = {"max_tokens": 20, "seed": 1, "stop": []} | asked
    (result,) = run(
        EngineCore(engines, lambda: None), [admitted(7, strategy=strategy, sampling=sampling)], after_step=save
    )
    assert result.choices[0].logprobs is not None
    content, ids = result.choices[0].logprobs["content"], ids_of(result)
    assert len(content) == len(ids) == 20
    model, tokenizer = engines.generator, engines.generator.tokenizer
    prompt = tokenizer.render([{"role": "user", "content": "Compute 1 + 1."}])
    for place, entry in enumerate(content):
        best = {token: model_logprob(model, [*prompt, *ids[:place]], token) for token in (ids[place], 66)}
        assert entry["logprob"] == pytest.approx(best[ids[place]], abs=1e-4)
        values = [other["logprob"] for other in entry["top_logprobs"]]
        assert len(values) == 3
        assert values == sorted(values, reverse=True)
        assert values[0] >= max(best.values()) - 1e-4
        assert sum(map(math.exp, values)) <= 1
    for num in range(1, len(deltas), 6):
        again = made(engines, strategy=strategy, deltas=deltas[:num], **sampling)
        assert again.choices[0].logprobs is not None
        for one, other in zip(content, again.choices[0].logprobs["content"], strict=True):
            assert [top["token"] for top in one["top_logprobs"]] == [top["token"] for top in other["top_logprobs"]]
            assert one["top_logprobs"][0]["logprob"] == pytest.approx(other["top_logprobs"][0]["logprob"], abs=1e-4)


def model_logprob(engine: Engine, tokens: list[int], token: int) -> float:
    """The log-probability of a token after these, computed by another request."""
    scored = engine.score([*tokens, token], start=len(tokens))
    while scored.finish_reason is None:
        engine.step()
    return scored.logprobs[0]


@pytest.mark.parametrize("strategy", [DIRECT, STEPS])
@pytest.mark.parametrize(
    "sampling",
    [
        {"frequency_penalty": 1.5, "presence_penalty": 1.0, "repetition_penalty": 1.3},
        {"min_tokens": 30, "stop_token_ids": [66, 67, 68, 69, 70], "min_p": 0.01, "top_k": 40},
    ],
)
def test_who_resumes_a_job_counts_what_another_attempt_made(
    engines: Engines, strategy: Document, sampling: dict[str, Any]
) -> None:
    deltas: list[Document] = []

    def save(jobs: list[Job]) -> None:
        if (delta := jobs[0].delta()) is not None:
            deltas.append(delta)

    given = {"temperature": 1.0, "max_tokens": 40, "seed": 3, "stop": []} | sampling
    whole = admitted(7, strategy=strategy, sampling=given)
    (result,) = run(EngineCore(engines, lambda: None), [whole], after_step=save)
    assert len(deltas) > 20
    for num in range(1, len(deltas), 6):
        assert ids_of(made(engines, strategy=strategy, deltas=deltas[:num], **given)) == ids_of(result)


@pytest.mark.parametrize(("field", "value"), [("stop_token_ids", [5, 300]), ("logit_bias", {"300": 1.0})])
def test_a_token_that_the_model_does_not_have_fails_its_job_alone(engines: Engines, field: str, value: Any) -> None:
    base = {"temperature": 1.0, "max_tokens": 5, "seed": 1, "stop": []}
    bad, good = admitted(1, strategy=DIRECT, sampling=base | {field: value}), admitted(2, strategy=DIRECT)
    failed, fine = run(EngineCore(engines, lambda: None), [bad, good])
    assert failed.error is not None
    assert (failed.error.code, "is 300; the vocabulary is 0 to 299" in failed.error.message) == (
        "invalid_request",
        True,
    )
    assert fine.error is None
