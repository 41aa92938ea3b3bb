"""Answers that are held to a structure, by real engines with small random models."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from ponder.domain.structure_check import check_structure
from ponder.domain.verifier import JsonSchema
from ponder.domain.verifier_check import VerifierLimits, check_schema
from ponder.errors import InvalidInput
from ponder_worker.engine_process.engine_core import EngineCore
from ponder_worker.engine_process.job import Job
from ponder_worker.engine_process.loading.engines import Engines
from ponder_worker.protocol import Document, JobResult
from ponder_worker.search.thought import Thought
from ponder_worker.verify.verifiers.json_schema import examine

from ..schemas import schemas
from ..searches import BEAM, admitted, run

DIRECT = {"name": "direct"}
STEPS = {"name": "beam_search", "n": 1, "width": 1, "max_rounds": 40, "separator": "a"}
"""One path that grows by steps: greedily it is the text of one sample."""
PERSON = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 12},
        "age": {"type": "integer", "minimum": 0, "maximum": 150},
        "tags": {"type": "array", "items": {"enum": ["a", "b"]}, "minItems": 1, "maxItems": 3},
    },
    "required": ["name", "age", "tags"],
    "additionalProperties": False,
}
TEXT = {
    "type": "object",
    "properties": {"a": {"type": "string", "minLength": 3, "maxLength": 9}},
    "required": ["a"],
    "additionalProperties": False,
}
TIGHT = {"\t": -100, "\n": -100, "\r": -100, " ": -100}
"""Biases against spaces, of which a random model puts very many between the parts of a JSON text."""
END, OPEN, CLOSE = 2, ord("<"), ord(">")


def made(engines: Engines, structure: Document, *, strategy: Document = DIRECT, **changes: Any) -> JobResult:
    encode = engines.generator.tokenizer.encode
    biases = {str(encode(text)[0]): bias for text, bias in TIGHT.items()}
    sampling = {"temperature": 1.0, "max_tokens": 200, "seed": 1, "stop": [], "logit_bias": biases}
    sampling |= changes.pop("sampling", {})
    deltas, after_step = changes.pop("deltas", ()), changes.pop("after_step", lambda jobs: None)
    request = {"strategy": strategy, "structure": structure, "sampling": sampling} | changes
    (result,) = run(EngineCore(engines, lambda: None), [admitted(7, deltas=deltas, **request)], after_step)
    return result


def fits(text: str | None, schema: Document = PERSON) -> bool:
    return text is not None and examine(text, JsonSchema.model_validate({"schema": schema}), "").verdict == "passed"


def ids_of(result: JobResult) -> list[int]:
    return [token for node in result.tree["nodes"] for token in node["ids"]]


def thinking(engines: Engines) -> Engines:
    """Engines whose model marks its thoughts with < and >, which are letters to everybody else."""
    (opens,), (closes,) = (engines.generator.tokenizer.encode(mark) for mark in "<>")
    return replace(engines, thought=Thought((opens,), (closes,), ">", (closes,), answer_tokens=100))


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(schemas(), st.integers(0, 2**32))
def test_an_answer_passes_the_verifier_of_its_schema(engines: Engines, schema: Document, seed: int) -> None:
    try:
        check_schema(schema)
        check_structure({"json_schema": schema}, VerifierLimits(), "schema")
    except InvalidInput:
        assume(False)
    result = made(engines, {"json_schema": schema}, sampling={"seed": seed})
    (choice,) = result.choices
    assert result.error is None
    assert fits(choice.text, schema) or choice.finish_reason == "length"


@pytest.mark.parametrize(
    "strategy",
    [
        {"name": "best_of_n", "n": 4, "select": "majority", "early_stopping": None},
        {"name": "self_consistency", "n": 4, "early_stopping": None},
        BEAM | {"max_rounds": 60},
        STEPS,
    ],
    ids=lambda strategy: strategy["name"],
)
def test_every_complete_candidate_of_a_search_fits(engines: Engines, strategy: Document) -> None:
    result = made(engines, {"json_schema": PERSON}, strategy=strategy, n=1)
    assert result.error is None
    nodes = result.tree["nodes"]
    found = [candidate for candidate in result.tree["candidates"] if nodes[candidate["node"]]["stop"] == "stop"]
    assert found
    assert all(fits(candidate["answer"]) for candidate in found)


@pytest.mark.parametrize("strategy", [DIRECT, STEPS, BEAM], ids=lambda strategy: strategy["name"])
@pytest.mark.parametrize("num_steps", [3, 9, 14, 30])
def test_an_interrupted_answer_goes_on_inside_its_structure(
    engines: Engines, strategy: Document, num_steps: int
) -> None:
    """The deltas of the first attempt are all that the second one gets: it may begin in the middle of a string."""

    class Preempted(Exception):
        pass

    deltas: list[Document] = []
    steps = iter(range(1000))

    def preempt(jobs: list[Job]) -> None:
        if next(steps) == num_steps:
            deltas.append(json.loads(json.dumps(jobs[0].delta())))
            jobs[0].drop()
            raise Preempted

    whole = made(engines, {"json_schema": PERSON}, strategy=strategy)
    with pytest.raises(Preempted):
        made(engines, {"json_schema": PERSON}, strategy=strategy, after_step=preempt)
    resumed = made(engines, {"json_schema": PERSON}, strategy=strategy, deltas=deltas)
    assert any(node["ids"] for node in deltas[0]["nodes"] or ()) or deltas[0]
    assert [choice.text for choice in resumed.choices] == [choice.text for choice in whole.choices]
    assert ids_of(resumed) == ids_of(whole)


def test_steps_make_the_text_of_one_sample(engines: Engines) -> None:
    greedy = {"temperature": 0.0}
    whole, steps = (made(engines, {"json_schema": PERSON}, strategy=one, sampling=greedy) for one in (DIRECT, STEPS))
    assert len(steps.tree["nodes"]) > 3, "there is more than one step"
    assert ids_of(steps) == ids_of(whole)
    assert fits(steps.choices[0].text)


def test_a_sample_ends_where_nothing_can_follow_and_only_there(engines: Engines) -> None:
    for seed in range(8):
        result = made(engines, {"regex": "[0-9]{3}-[a-f]{2}"}, sampling={"seed": seed, "min_tokens": 100})
        assert re.fullmatch("[0-9]{3}-[a-f]{2}", result.choices[0].text)
        assert result.choices[0].finish_reason == "stop"
        assert len(ids_of(result)) <= 6, "no token is spent on the end"


@pytest.mark.parametrize(
    ("sampling", "shortest"), [({}, 3), ({"min_tokens": 12}, 12), ({"ignore_eos": True}, 40)], ids=str
)
def test_the_models_end_is_sampled_only_where_the_structure_allows_it(
    engines: Engines, sampling: Document, shortest: int
) -> None:
    biases = {"logit_bias": {str(END): 100}}
    result = made(engines, {"regex": "[0-9]{3,}"}, sampling={"max_tokens": 40} | biases | sampling)
    text = result.choices[0].text
    assert re.fullmatch("[0-9]{3,}", text)
    assert len(text) == shortest
    assert END not in ids_of(result)[:-1]


def test_a_stop_token_inside_the_structure_is_text(engines: Engines) -> None:
    (comma,) = engines.generator.tokenizer.encode(",")
    result = made(engines, {"json_schema": PERSON}, sampling={"stop_token_ids": [comma]})
    assert fits(result.choices[0].text)


def test_a_sample_that_is_cut_off_says_so(engines: Engines) -> None:
    result = made(engines, {"json_schema": PERSON}, sampling={"max_tokens": 9})
    assert result.choices[0].finish_reason == "length"
    assert result.choices[0].text.startswith("{")
    limited = made(engines, {"json_schema": PERSON}, budget={"tokens": 9})
    assert limited.choices[0].finish_reason == "length"


def test_a_choice_is_one_of_its_texts_and_a_grammar_is_followed(engines: Engines) -> None:
    chosen = {made(engines, {"choice": ["yes", "no", 'a "b"']}, sampling={"seed": seed}).answer for seed in range(20)}
    assert chosen == {"yes", "no", 'a "b"'}
    grammar = 'start: item ("," item)*\nitem: /[a-c]+/ "=" /[0-9]/'
    text = made(engines, {"grammar": grammar}, sampling={"max_tokens": 400}).choices[0].text
    assert re.fullmatch(r"[a-c]+=[0-9](,[a-c]+=[0-9])*", text) or len(text) > 300


def test_a_stop_string_ends_the_sample_inside_the_structure(engines: Engines) -> None:
    result = made(engines, {"json_schema": PERSON}, sampling={"stop": [":"]})
    assert result.choices[0].text == '{"name"'
    assert result.choices[0].finish_reason == "stop"


def test_log_probabilities_are_those_of_the_model(engines: Engines) -> None:
    """Most tokens that a structure forces are unlikely, and their log-probabilities say so."""
    wanted = {"logprobs": True, "top_logprobs": 2}
    result = made(engines, {"json_schema": PERSON}, sampling=wanted)
    logprobs = result.choices[0].logprobs
    assert logprobs is not None
    assert "".join(bytes(entry["bytes"]).decode(errors="ignore") for entry in logprobs["content"][:2]) == '{"'
    assert logprobs["content"][0]["logprob"] < -1
    assert logprobs["content"][0]["top_logprobs"][0]["token"] != "{"


def test_penalties_and_filters_choose_among_what_the_structure_allows(engines: Engines) -> None:
    narrow = {"top_k": 1, "repetition_penalty": 3.0, "frequency_penalty": 1.0, "top_p": 0.5}
    assert fits(made(engines, {"json_schema": PERSON}, sampling=narrow).choices[0].text)


class TestThinking:
    def test_a_thought_is_free_until_it_is_closed(self, engines: Engines) -> None:
        opens = {str(engines.generator.tokenizer.encode("<")[0]): 100.0}
        for seed in range(6):
            result = made(
                thinking(engines),
                {"json_schema": TEXT},
                sampling={"seed": seed, "logit_bias": opens, "max_tokens": 300},
                budget={"thinking_tokens": 20},
            )
            (choice,) = result.choices
            assert choice.reasoning, "it began with the mark, which the structure does not allow"
            assert fits(choice.text, TEXT)
            assert choice.answer == choice.text

    def test_marks_in_an_answer_are_text(self, engines: Engines) -> None:
        """As texts of several tokens they are not masked: nothing opens or closes there."""
        schema = {"type": "object", "properties": {"a": {"enum": ["</think>x", "<think>y</think>"]}}, "required": ["a"],
                  "additionalProperties": False}  # fmt: skip
        for seed in range(4):
            result = made(
                engines,
                {"json_schema": schema},
                sampling={"seed": seed},
                verifier={"name": "json_schema", "schema": schema},
            )
            assert fits(result.answer, schema)

    @pytest.mark.parametrize("strategy", [DIRECT, {"name": "budget_forcing", "wait": "Wait", "num_waits": 2}])
    def test_a_model_that_does_not_think_is_held_at_once(self, engines: Engines, strategy: Document) -> None:
        never = {str(engines.generator.tokenizer.encode("<")[0]): -100.0}
        for seed in range(4):
            result = made(
                thinking(engines),
                {"json_schema": TEXT},
                strategy=strategy,
                sampling={"seed": seed, "logit_bias": never, "max_tokens": 300},
                budget={"thinking_tokens": 5},
            )
            (choice,) = result.choices
            assert choice.reasoning is None
            assert fits(choice.text, TEXT)

    def test_a_forced_thought_is_followed_by_the_structure(self, engines: Engines) -> None:
        opens = {str(engines.generator.tokenizer.encode("<")[0]): 100.0}
        result = made(
            thinking(engines),
            {"json_schema": TEXT},
            strategy={"name": "budget_forcing", "wait": "Wait", "num_waits": 2},
            sampling={"logit_bias": opens, "max_tokens": 300},
            budget={"thinking_tokens": 60},
        )
        assert fits(result.choices[0].text, TEXT)

    def test_forcing_a_model_without_marks_is_refused(self, engines: Engines) -> None:
        result = made(engines, {"json_schema": TEXT}, strategy={"name": "budget_forcing"})
        assert result.error is not None
        assert "marks where its thought ends" in result.error.message


@pytest.mark.parametrize("structure", [{"regex": "("}, {"grammar": "start: x"}])
def test_a_structure_that_this_worker_cannot_enforce_fails_its_job_alone(engines: Engines, structure: Document) -> None:
    result = made(engines, structure)
    assert result.error is not None
    assert result.error.code == "invalid_request"
    assert "cannot be enforced" in result.error.message
