"""A batch line becomes the request of a job, or is refused by name."""

from __future__ import annotations

import re
from typing import Any

import pytest

from ponder.domain.batch.options import BatchOptions
from ponder.domain.batch.request import JobRequest, ServedModel, Terms, parse, refuse_told
from ponder.domain.state import Lane
from ponder.errors import InvalidLine

DEMO = ServedModel("demo", "f0", 512, has_reward_model=True)
BARE = ServedModel("bare", "f1", 512, has_reward_model=False)
SCHEMA_FORMAT = {"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "array"}}}
NOT_STRICT = {"type": "json_schema", "json_schema": {"name": "x", "strict": False, "schema": {"uniqueItems": True}}}
SECRET = "the launch code is 0000"


def request(options: dict[str, Any] | None = None, *, allows_code: bool = False, **body: Any) -> JobRequest:
    base = {"model": "demo", "messages": [{"role": "user", "content": SECRET}]}
    line = {"custom_id": "a", "method": "POST", "url": "/v1/chat/completions", "body": base | body}
    models = {"demo": DEMO, "bare": BARE}
    return parse(line, 1, Terms(BatchOptions.model_validate(options or {}), models, allows_code=allows_code))


def test_a_bare_line_has_every_default() -> None:
    made = request()
    assert made.model is DEMO
    assert made.document == {
        "messages": [{"role": "user", "content": SECRET}],
        "sampling": {
            "temperature": None,
            "top_p": None,
            "max_tokens": None,
            "stop": [],
            "seed": None,
            "presence_penalty": 0.0,
            "frequency_penalty": 0.0,
            "logprobs": False,
        },
        "n": 1,
        "strategy": {"name": "direct"},
        "budget": {
            "tokens": None,
            "tokens_per_sample": None,
            "thinking_tokens": None,
            "dollars": None,
            "deadline_s": None,
        },
        "verifier": None,
        "reference": None,
        "oracle": False,
        "max_rounds": 1,
        "kept": {},
    }


def test_every_used_field_arrives() -> None:
    sampling = {"temperature": 0.5, "top_p": 1, "seed": -(2**63), "presence_penalty": -2, "frequency_penalty": 2}
    made = request(**sampling, max_completion_tokens=9, stop="\n", logprobs=True, n=3, reasoning_effort="low")
    assert made.document["sampling"] == sampling | {"max_tokens": 9, "stop": ["\n"], "logprobs": True}
    assert made.document["n"] == 3
    assert made.document["effort"] == {"tokens": 4096, "thinking_tokens": 4096}


def test_vllms_sampling_fields_arrive_if_they_are_sent() -> None:
    sent = {"top_k": 5, "min_p": 0.1, "repetition_penalty": 1.1, "min_tokens": 2, "stop_token_ids": [7]}
    sent |= {"logit_bias": {"50256": -100}, "ignore_eos": True}
    bare = request().document["sampling"]
    assert request(**sent).document["sampling"] == bare | sent
    assert request(**dict.fromkeys(sent)).document["sampling"] == bare
    ranked = request(logprobs=True, top_logprobs=20).document["sampling"]
    assert ranked == bare | {"logprobs": True, "top_logprobs": 20}
    assert request(top_k=-1).document["sampling"] == bare | {"top_k": 0}


def test_what_a_chat_template_is_told_arrives() -> None:
    assert "template" not in request(add_generation_prompt=True, continue_final_message=False).document
    off = request(chat_template_kwargs={"enable_thinking": False}).document["template"]
    assert off == {
        "kwargs": {"enable_thinking": False}, "add_generation_prompt": True, "continue_final_message": False
    }  # fmt: skip
    messages = [{"role": "user", "content": "x"}, {"role": "assistant", "content": "y"}]
    continued = request(messages=messages, continue_final_message=True, add_generation_prompt=False).document
    assert continued["template"] == {"kwargs": {}, "add_generation_prompt": False, "continue_final_message": True}
    assert not request(add_generation_prompt=False).document["template"]["add_generation_prompt"]


def test_an_effort_goes_between_the_lines_budget_and_the_batchs() -> None:
    batch = {"budget": {"tokens": 100, "thinking_tokens": 50}}
    made = request(batch, reasoning_effort="low", ponder={"budget": {"thinking_tokens": 7}}).document
    assert (made["budget"]["tokens"], made["budget"]["thinking_tokens"]) == (100, 7)
    assert made["effort"] == {"tokens": 4096}
    assert made["template"]["kwargs"] == {"reasoning_effort": "low", "enable_thinking": True}
    none = request(reasoning_effort="none", chat_template_kwargs={"reasoning_effort": "x"}).document
    assert "effort" not in none
    assert none["template"]["kwargs"] == {"reasoning_effort": "x", "enable_thinking": False}


def test_thoughts_of_former_turns_reach_the_template() -> None:
    for name in ("reasoning_content", "reasoning"):
        messages = [{"role": "assistant", "content": "c", name: "hm"}, {"role": "user", "content": "d"}]
        assert request(messages=messages).document["messages"][0] == {
            "role": "assistant", "content": "c", "reasoning_content": "hm"
        }  # fmt: skip


def test_fields_that_are_only_kept_are_kept() -> None:
    kept = {"user": "u", "store": True, "metadata": {"level": 3, "source": "x"}, "service_tier": "flex"}
    made = request(**kept)
    assert made.document["kept"] == kept
    assert made.level == "3"


def test_a_line_goes_before_its_batch() -> None:
    batch = {"strategy": "self_consistency", "budget": {"tokens": 100, "deadline_s": 60}, "verifier": {"name": "exact"}}
    plain = request(batch)
    assert (plain.strategy, plain.document["budget"]["tokens"]) == ("self_consistency", 100)
    assert plain.document["verifier"] == {"name": "exact"}
    own = request(batch, ponder={"strategy": {"name": "beam_search", "n": 2}, "budget": 50, "verifier": "number"})
    assert own.document["strategy"]["n"] == 2
    assert own.document["budget"] == {
        "tokens": 50,
        "tokens_per_sample": None,
        "thinking_tokens": None,
        "dollars": None,
        "deadline_s": 60,
    }
    assert own.document["verifier"] == {"name": "number"}


def test_a_line_can_raise_the_priority_that_the_batch_leaves_open() -> None:
    assert request(ponder={"priority": "interactive"}).priority is Lane.INTERACTIVE
    assert request({"priority": "interactive"}, ponder={"priority": "interactive"}).priority is Lane.INTERACTIVE
    with pytest.raises(InvalidLine, match="priority"):
        request({"priority": "batch"}, ponder={"priority": "interactive"})


def test_the_batch_can_name_the_model_for_all_lines() -> None:
    assert request({"model": "bare"}, model="gpt-3.5-turbo-0125").model is BARE


def test_a_reference_alone_is_judged_as_mathematics() -> None:
    assert request(ponder={"reference": 42}).document["reference"] == "42"
    assert request(ponder={"reference": "42"}).document["verifier"]["name"] == "math"
    assert not request(ponder={"reference": "42"}).judged
    assert request(ponder={"reference": "42", "verifier": "judge"}).judged
    assert request({"verifier": {"name": "judge"}}).judged


@pytest.mark.parametrize(
    ("form", "schema"),
    [
        ({"type": "text"}, None),
        ({"type": "json_object"}, {"type": "object"}),
        ({"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "array"}}}, {"type": "array"}),
    ],
)
def test_a_response_format_is_verified(form: dict[str, Any], schema: dict[str, Any] | None) -> None:
    verifier = request(response_format=form).document["verifier"]
    assert verifier == (None if schema is None else {"name": "json_schema", "schema": schema})


@pytest.mark.parametrize(
    ("options", "body", "structure"),
    [
        ({}, {}, None),
        ({}, {"response_format": {"type": "json_object"}}, {"json_schema": {"type": "object"}}),
        ({}, {"response_format": SCHEMA_FORMAT}, {"json_schema": {"type": "array"}}),
        (
            {},
            {"response_format": SCHEMA_FORMAT, "ponder": {"strategy": "beam_search"}},
            {"json_schema": {"type": "array"}},
        ),
        ({}, {"response_format": NOT_STRICT}, None),
        ({}, {"ponder": {"structure": {"regex": "[0-9]+"}}}, {"regex": "[0-9]+"}),
        ({"structure": {"choice": ["a"]}}, {}, {"choice": ["a"]}),
        ({"structure": {"choice": ["a"]}}, {"response_format": {"type": "text"}}, {"choice": ["a"]}),
        ({"structure": {"choice": ["a"]}}, {"ponder": {"structure": {"regex": "b"}}}, {"regex": "b"}),
        ({"structure": {"choice": ["a"]}}, {"response_format": SCHEMA_FORMAT}, {"json_schema": {"type": "array"}}),
        ({"structure": {"choice": ["a"]}}, {"response_format": NOT_STRICT}, None),
    ],
)
def test_an_answer_is_held_to_what_its_line_or_its_batch_asks_for(
    options: dict[str, Any], body: dict[str, Any], structure: dict[str, Any] | None
) -> None:
    assert request(options, **body).document.get("structure") == structure


def test_text_parts_are_put_together_and_developers_speak_as_the_system() -> None:
    parts = [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
    messages = [{"role": "developer", "content": parts}, {"role": "assistant", "content": "c", "refusal": None}]
    assert request(messages=messages).document["messages"] == [
        {"role": "system", "content": "ab"},
        {"role": "assistant", "content": "c"},
    ]


@pytest.mark.parametrize(
    "nothing",
    [
        {"tools": []},
        {"tools": None},
        {"stream": False},
        {"modalities": ["text"]},
        {"logit_bias": {}},
        {"top_logprobs": 0},
        {"verbosity": "medium"},
        {"prompt_cache_key": ""},
        {"stream_options": {"include_usage": False}},
        {"top_k": None},
        {"extra_body": {}},
        {"stop": ""},
    ],
)
def test_an_unsupported_field_that_asks_for_nothing_is_accepted(nothing: dict[str, Any]) -> None:
    assert request(**nothing).custom_id == "a"


@pytest.mark.parametrize(
    "field", ["name", "refusal", "audio", "tool_calls", "tool_call_id", "function_call", "annotations"]
)
def test_a_field_of_a_message_that_asks_for_nothing_is_accepted(field: str) -> None:
    for nothing in (None, False, "", [], {}):
        messages = [{"role": "user", "content": "x", field: nothing}]
        assert request(messages=messages).document["messages"] == [{"role": "user", "content": "x"}]
    with pytest.raises(InvalidLine) as caught:
        request(messages=[{"role": "user", "content": "x", field: [SECRET]}])
    assert (caught.value.code, caught.value.param) == ("unsupported_field", f"body.messages[0].{field}")


@pytest.mark.parametrize("field", ["reasoning_content", "reasoning"])
def test_an_empty_thought_is_none(field: str) -> None:
    for empty in (None, "", [], {}):
        messages = [{"role": "assistant", "content": "x", field: empty}]
        assert request(messages=messages).document["messages"] == [{"role": "assistant", "content": "x"}]


@pytest.mark.parametrize("field", ["reasoning_details", "whatever"])
def test_an_unknown_empty_field_of_a_message_is_accepted(field: str) -> None:
    for empty in (None, "", [], {}):
        messages = [{"role": "assistant", "content": "x", field: empty}]
        assert request(messages=messages).document["messages"] == [{"role": "assistant", "content": "x"}]
    for asked in (False, 0, "x", [1]):
        with pytest.raises(InvalidLine) as caught:
            request(messages=[{"role": "user", "content": "x", field: asked}])
        assert (caught.value.code, caught.value.param) == ("unknown_field", f"body.messages[0].{field}")


def test_an_answer_of_nothing_that_calls_no_tool_is_an_empty_one() -> None:
    answer: dict[str, Any] = {"role": "assistant", "content": None, "tool_calls": []}
    assert request(messages=[answer]).document["messages"] == [{"role": "assistant", "content": ""}]


IMAGE = [{"type": "image_url", "image_url": {"url": "https://example.org/x.png"}}]
AUDIO = [{"type": "text", "text": "x"}, {"type": "input_audio", "input_audio": {}}]


@pytest.mark.parametrize(
    ("body", "code", "param"),
    [
        ({"model": "nobody"}, "model_not_found", "body.model"),
        ({"model": None}, "missing_required_parameter", "body.model"),
        ({"messages": []}, "invalid_value", "body.messages"),
        ({"messages": None}, "invalid_type", "body.messages"),
        ({"messages": [{"role": "tool", "content": "x"}]}, "invalid_value", "body.messages[0].role"),
        ({"messages": [{"role": "user"}]}, "missing_required_parameter", "body.messages[0].content"),
        ({"messages": [{"role": "user", "content": IMAGE}]}, "unsupported_content", "body.messages[0].content"),
        ({"messages": [{"role": "user", "content": AUDIO}]}, "unsupported_content", "body.messages[0].content"),
        ({"messages": [{"role": "user", "content": "", "name": "x"}]}, "unsupported_field", "body.messages[0].name"),
        ({"messages": [{"role": "user", "content": "", "x": 1}]}, "unknown_field", "body.messages[0].x"),
        ({"messages": [{"role": "user", "content": "x" * 9000}]}, "context_length_exceeded", "body.messages"),
        ({"messages": [{"role": "user", "content": ""}] * 513}, "context_length_exceeded", "body.messages"),
        ({"tools": [{"type": "function"}]}, "unsupported_field", "body.tools"),
        ({"audio": {"voice": "x"}}, "unsupported_field", "body.audio"),
        ({"modalities": ["text", "audio"]}, "unsupported_field", "body.modalities"),
        ({"stream": True}, "unsupported_field", "body.stream"),
        ({"web_search_options": {}}, "unsupported_field", "body.web_search_options"),
        ({"verbosity": "high"}, "unsupported_field", "body.verbosity"),
        ({"top_logprobs": 5}, "invalid_value", "body.top_logprobs"),
        ({"logprobs": True, "top_logprobs": 21}, "invalid_value", "body.top_logprobs"),
        ({"colour": "red"}, "unknown_field", "body.colour"),
        ({"n": 0}, "invalid_value", "body.n"),
        ({"n": 129}, "invalid_value", "body.n"),
        ({"n": 1.5}, "invalid_type", "body.n"),
        ({"n": 9, "ponder": {"strategy": "best_of_n"}}, "invalid_value", "body.n"),
        ({"temperature": -1}, "invalid_value", "body.temperature"),
        ({"temperature": 1e400}, "invalid_value", "body.temperature"),
        ({"temperature": "hot"}, "invalid_type", "body.temperature"),
        ({"top_p": 0}, "invalid_value", "body.top_p"),
        ({"max_tokens": 0}, "invalid_value", "body.max_tokens"),
        ({"max_tokens": 1, "max_completion_tokens": 2}, "invalid_value", "body.max_tokens"),
        ({"stop": ["a"] * 5}, "invalid_value", "body.stop"),
        ({"stop": [""]}, "invalid_value", "body.stop[0]"),
        ({"seed": 2**63}, "invalid_value", "body.seed"),
        ({"logprobs": 1}, "invalid_type", "body.logprobs"),
        ({"metadata": {"a": {}}}, "invalid_value", "body.metadata.a"),
        ({"reasoning_effort": "heroic"}, "invalid_value", "body.reasoning_effort"),
        ({"response_format": {"type": "xml"}}, "invalid_value", "body.response_format.type"),
        (
            {"response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": 1}}}},
            "invalid_schema",
            "body.response_format.json_schema.schema",
        ),
        (
            {
                "response_format": {
                    "type": "json_schema",
                    "json_schema": {"name": "x", "strict": True, "schema": {"properties": {"a": {"not": {}}}}},
                }
            },
            "invalid_structure",
            "body.response_format.json_schema.schema.properties.a.not",
        ),
        ({"ponder": {"structure": {"regex": "("}}}, "invalid_structure", "body.ponder.structure.regex"),
        ({"ponder": {"structure": {"regex": 1}}}, "invalid_type", "body.ponder.structure.regex"),
        ({"ponder": {"structure": {}}}, "invalid_value", "body.ponder.structure"),
        (
            {"ponder": {"structure": {"choice": ["a"]}}, "response_format": {"type": "json_object"}},
            "conflicting_structure",
            "body.ponder.structure",
        ),
        (
            {
                "ponder": {"structure": {"choice": ["a"]}},
                "messages": [{"role": "assistant", "content": "a"}],
                "continue_final_message": True,
            },
            "conflicting_structure",
            "body.continue_final_message",
        ),
        ({"ponder": {"budget": -1}}, "invalid_budget", "body.ponder.budget.tokens"),
        ({"ponder": {"budget": {"dollars": 0}}}, "invalid_budget", "body.ponder.budget.dollars"),
        ({"ponder": {"budget": {"gold": 1}}}, "unknown_field", "body.ponder.budget.gold"),
        ({"ponder": {"strategy": {"name": "best_of_n", "n": 0}}}, "invalid_value", "body.ponder.strategy.n"),
        ({"ponder": {"strategy": {"name": "magic"}}}, "invalid_value", "body.ponder.strategy"),
        ({"ponder": {"verifier": {"name": "json_schema", "schema": {"type": 1}}}}, "invalid_schema", None),
        ({"ponder": {"reference": [1]}}, "invalid_value", "body.ponder.reference"),
        ({"ponder": {"oracle": 1}}, "invalid_type", "body.ponder.oracle"),
        ({"ponder": {"max_rounds": 0}}, "invalid_value", "body.ponder.max_rounds"),
        ({"ponder": {"max_rounds": 101}}, "invalid_value", "body.ponder.max_rounds"),
        ({"ponder": {"verifier": "divination"}}, "invalid_value", "body.ponder.verifier"),
        ({"ponder": {"verifier": "regex"}}, "missing_required_parameter", "body.ponder.verifier.pattern"),
        (
            {"ponder": {"verifier": {"name": "regex", "pattern": "("}}},
            "invalid_pattern",
            "body.ponder.verifier.pattern",
        ),
        ({"ponder": {"verifier": {"name": "contains", "texts": []}}}, "invalid_value", "body.ponder.verifier.texts"),
        ({"ponder": {"verifier": "python_tests", "reference": "assert f() == 1"}}, "code_not_allowed", None),
        (
            {"ponder": {"verifier": {"name": "math", "order": "any"}}},
            "invalid_value",
            "body.ponder.verifier.order",
        ),
        (
            {"ponder": {"verifier": {"name": "math", "unit": "ignored"}}},
            "unknown_field",
            "body.ponder.verifier.unit",
        ),
        (
            {"ponder": {"verifier": "number", "reference": "five"}},
            "unreadable_reference",
            "body.ponder.reference",
        ),
        (
            {"ponder": {"verifier": "choice", "reference": "Paris"}},
            "unreadable_reference",
            "body.ponder.reference",
        ),
        ({"ponder": {"reference": " "}}, "unreadable_reference", "body.ponder.reference"),
        ({"top_k": -2}, "invalid_value", "body.top_k"),
        ({"min_p": 1.5}, "invalid_value", "body.min_p"),
        ({"repetition_penalty": 0}, "invalid_value", "body.repetition_penalty"),
        ({"min_tokens": -1}, "invalid_value", "body.min_tokens"),
        ({"min_tokens": 9, "max_completion_tokens": 8}, "invalid_value", "body.min_tokens"),
        ({"stop_token_ids": [-1]}, "invalid_value", "body.stop_token_ids[0]"),
        ({"stop_token_ids": [1] * 129}, "invalid_value", "body.stop_token_ids"),
        ({"logit_bias": {"the": 1}}, "invalid_value", "body.logit_bias"),
        ({"logit_bias": {"5": 101}}, "invalid_value", "body.logit_bias.5"),
        ({"logit_bias": {str(token): 1 for token in range(1025)}}, "invalid_value", "body.logit_bias"),
        ({"chat_template_kwargs": {"messages": []}}, "invalid_value", "body.chat_template_kwargs"),
        ({"chat_template_kwargs": {"add_generation_prompt": 1}}, "invalid_value", "body.chat_template_kwargs"),
        ({"chat_template_kwargs": {"x": "y" * 4096}}, "invalid_value", "body.chat_template_kwargs"),
        ({"chat_template_kwargs": ["x"]}, "invalid_type", "body.chat_template_kwargs"),
        ({"continue_final_message": True}, "invalid_value", "body.continue_final_message"),
        (
            {
                "messages": [{"role": "assistant", "content": "x"}],
                "continue_final_message": True,
                "add_generation_prompt": True,
            },
            "invalid_value",
            "body.add_generation_prompt",
        ),
        ({"prompt": "x"}, "unknown_field", "body.prompt"),
        ({"ignore_eos": 1}, "invalid_type", "body.ignore_eos"),
        ({"enable_thinking": False}, "unknown_field", "body.enable_thinking"),
        ({"stream_options": {"include_usage": True}}, "unsupported_field", "body.stream_options"),
        ({"messages": [{"role": "assistant", "content": None}]}, "invalid_type", "body.messages[0].content"),
        (
            {"messages": [{"role": "user", "content": None, "tool_calls": []}]},
            "invalid_type",
            "body.messages[0].content",
        ),
        (
            {"messages": [{"role": "user", "content": "x", "reasoning_content": "hm"}]},
            "invalid_value",
            "body.messages[0]",
        ),
        ({"model": "bare", "ponder": {"strategy": "best_of_n"}}, "no_reward_model", "body.ponder.strategy"),
        ({"model": "bare", "ponder": {"strategy": "beam_search"}}, "no_reward_model", "body.ponder.strategy"),
    ],
)
def test_a_bad_body_is_refused_with_code_and_param(body: dict[str, Any], code: str, param: str | None) -> None:
    with pytest.raises(InvalidLine) as caught:
        request(**body)
    assert (caught.value.code, caught.value.line, caught.value.custom_id) == (code, 1, "a")
    assert param is None or caught.value.param == param
    assert SECRET not in caught.value.message


@pytest.mark.parametrize(
    ("change", "code", "param"),
    [
        ({"custom_id": None}, "invalid_custom_id", "custom_id"),
        ({"custom_id": ""}, "invalid_custom_id", "custom_id"),
        ({"custom_id": "x" * 513}, "invalid_custom_id", "custom_id"),
        ({"method": "GET"}, "invalid_method", "method"),
        ({"url": "/v1/embeddings"}, "invalid_url", "url"),
        ({"body": []}, "invalid_type", "body"),
        ({"extra": 1}, "unknown_field", "extra"),
    ],
)
def test_a_bad_line_is_refused_with_code_and_param(change: dict[str, Any], code: str, param: str) -> None:
    line = {"custom_id": "a", "method": "POST", "url": "/v1/chat/completions", "body": {}} | change
    with pytest.raises(InvalidLine) as caught:
        parse(line, 1, Terms(BatchOptions(), {}))
    assert (caught.value.code, caught.value.param) == (code, param)


def test_a_line_with_a_clients_error_is_refused_for_that_error() -> None:
    told = {"custom_id": "a", "error": {"code": "invalid_row", "message": "in.csv, line 3: it has 1 cell"}}
    with pytest.raises(InvalidLine) as caught:
        refuse_told(told, 3)
    refusal = caught.value
    assert (refusal.message, refusal.code) == ("in.csv, line 3: it has 1 cell", "invalid_row")
    assert (refusal.line, refusal.custom_id) == (3, "a")
    for other in ({"custom_id": "a", "body": {}}, {"error": None}, {"error": {"message": 7}}, {"error": "x"}):
        refuse_told(other, 3)


@pytest.mark.parametrize("missing", ["custom_id", "method", "url", "body"])
def test_a_missing_field_is_named(missing: str) -> None:
    line = {"custom_id": "a", "method": "POST", "url": "/v1/chat/completions", "body": {}}
    del line[missing]
    with pytest.raises(InvalidLine) as caught:
        parse(line, 1, Terms(BatchOptions(), {}))
    assert (caught.value.code, caught.value.param) == ("missing_required_parameter", missing)


@pytest.mark.parametrize(
    ("verifier", "reference"),
    [
        ("number", "She sold 72 clips.\n#### 72"),
        ("number", "½"),
        ("number", "૨"),
        ("number", "x_1 = 5"),
        *(("choice", reference) for reference in (
            "(C) Paris", "C", "c", "(c)", "B. It is", "C: Paris", "A multiple is too much: D", "Answer: c",
            r"\boxed{\text{C}}", r"\boxed{c}", "#### c", "The answer is c", "Answer: (b) the second",
        )),
        *(("math", reference) for reference in ("Paris", "∞", r"\{\}", "[]", r"\boxed{5}", "$5$", "$$x$$", "五")),
        *(("exact", reference) for reference in ("five", "] )", "?", "$", r"\boxed{5}")),
    ],
)  # fmt: skip
def test_a_reference_that_a_worker_may_read_is_taken(verifier: str, reference: str) -> None:
    assert request(ponder={"verifier": verifier, "reference": reference}).document["reference"] == reference


@pytest.mark.parametrize(
    ("verifier", "reference"),
    [
        *(("math", reference) for reference in ("", "???", "$$", "$ $", ".", "####", r"\boxed{}", r"\boxed{")),
        *(("exact", reference) for reference in ("", "\n", "$$", "####", r"\boxed{}", r"\boxed{ }")),
        *(("number", reference) for reference in ("", "x_1", "x_{12}", r"\boxed{}", "####", "five")),
        *(("choice", reference) for reference in (
            "", "a dog", "A dog", "I like", "(c) Paris", "K", "none", "I'm sure", "This is a dog", r"\boxed{}", "it is"
        )),
    ],
)  # fmt: skip
def test_a_reference_that_no_worker_can_read_is_refused(verifier: str, reference: str) -> None:
    with pytest.raises(InvalidLine) as caught:
        request(ponder={"verifier": verifier, "reference": reference})
    assert (caught.value.code, caught.value.param) == ("unreadable_reference", "body.ponder.reference")


def test_the_verifier_math_takes_its_policy() -> None:
    policy = {"name": "math", "order": "kept", "units": "required", "percent": "fraction"}
    assert request(ponder={"verifier": policy, "reference": "5"}).document["verifier"] == policy


def test_a_majority_needs_no_reward_model() -> None:
    strategy = {"name": "best_of_n", "n": 4, "select": "majority"}
    assert request(model="bare", ponder={"strategy": strategy}).strategy == "best_of_n"


CONTAINS = {"name": "contains", "texts": ["x"]}
TESTED = {"name": "python_tests", "tests": "assert f() == 1"}


@pytest.mark.parametrize(
    ("batch", "own", "remedy"),
    [
        ({}, {"max_rounds": 2}, "name one"),
        ({"max_rounds": 2}, {"reference": "6"}, "oracle: true"),
        ({"max_rounds": 2, "verifier": CONTAINS}, {"verifier": "exact", "reference": "6"}, "oracle: true"),
        ({"max_rounds": 2, "oracle": True}, {"oracle": False, "reference": "6"}, "oracle: true"),
        ({"max_rounds": 2, "oracle": True}, {"verifier": "math"}, "give one"),
        ({"max_rounds": 2}, {"verifier": "python_tests", "reference": "assert f() == 1"}, "oracle: true"),
    ],
)
def test_rounds_that_no_verdict_may_drive_are_refused(batch: dict[str, Any], own: dict[str, Any], remedy: str) -> None:
    with pytest.raises(InvalidLine, match=remedy) as caught:
        request(batch, allows_code=True, ponder=own)
    assert (caught.value.code, caught.value.param) == ("no_verifier", "body.ponder.max_rounds")


@pytest.mark.parametrize(
    ("batch", "own"),
    [
        ({"max_rounds": 3, "verifier": CONTAINS}, {}),
        ({"max_rounds": 3}, {"verifier": TESTED}),
        ({"max_rounds": 3, "oracle": True}, {"reference": "6"}),
        ({"max_rounds": 9}, {"max_rounds": 3, "oracle": True, "reference": "6"}),
    ],
)
def test_rounds_that_a_verdict_may_drive_arrive(batch: dict[str, Any], own: dict[str, Any]) -> None:
    made = request(batch, allows_code=True, ponder=own)
    assert made.document["max_rounds"] == 3
    assert made.document["oracle"] == made.oracle == (made.document["verifier"]["name"] == "math")


@pytest.mark.parametrize(("own", "remedy"), [({}, "there is no verifier"), ({"reference": "6"}, "oracle: true")])
def test_a_strategy_that_asks_the_verifier_is_refused_if_it_may_not(own: dict[str, Any], remedy: str) -> None:
    with pytest.raises(InvalidLine, match=f"refine asks the verifier, but .*{remedy}") as caught:
        request({}, ponder=own | {"strategy": {"name": "refine"}})
    assert (caught.value.code, caught.value.param) == ("no_verifier", "body.ponder.strategy")
    request({}, ponder={"strategy": {"name": "refine"}, "verifier": CONTAINS})


def test_one_round_needs_no_verifier_and_is_the_lines_to_ask_for() -> None:
    assert request({"max_rounds": 9}, ponder={"max_rounds": 1}).document["max_rounds"] == 1


TOURNAMENT = {"name": "best_of_n", "n": 4, "select": "tournament"}


@pytest.mark.parametrize("select", ["tournament", "genselect"])
def test_a_judge_chooses_without_a_reward_model(select: str) -> None:
    made = request(model="bare", ponder={"strategy": TOURNAMENT | {"select": select}})
    assert made.document["strategy"]["judge"] is None
    own = {"n": 3, "max_tokens": 99, "template": "{problem}: {answers}"}
    made = request(model="bare", ponder={"strategy": TOURNAMENT | {"select": select, "judge": own}})
    assert made.document["strategy"]["judge"] == own | {"model": None}


@pytest.mark.parametrize(
    ("options", "param", "says"),
    [
        ({"strategy": TOURNAMENT | {"select": "best", "judge": {}}}, "strategy.judge", "leave it out, or select"),
        ({"strategy": TOURNAMENT | {"judge": {"template": "{problem}"}}}, "strategy.judge.template", "{answers}"),
        ({"strategy": TOURNAMENT | {"judge": {"template": "{answer}"}}}, "strategy.judge.template", "{answer} is no"),
        ({"strategy": TOURNAMENT | {"judge": {"template": "{reference}"}}}, "strategy.judge.template", "is no"),
        ({"strategy": TOURNAMENT | {"judge": {"n": 0}}}, "strategy.judge.n", "greater than or equal to 1"),
        ({"verifier": {"name": "judge", "template": "?"}}, "verifier.template", "{answer}"),
        ({"verifier": {"name": "judge", "template": "{answer} {text}"}}, "verifier.template", "{text} is no"),
        ({"verifier": {"name": "judge", "template": "{answer} {reference}"}}, "verifier", "use_reference: true"),
        ({"verifier": {"name": "judge", "template": "{answer}", "use_reference": True}}, "verifier", "say {reference}"),
    ],
)  # fmt: skip
def test_a_judge_that_asks_for_what_there_is_not_is_refused(options: dict[str, Any], param: str, says: str) -> None:
    with pytest.raises(InvalidLine, match=re.escape(says)) as caught:
        request(ponder=options)
    assert (caught.value.code, caught.value.param) == ("invalid_value", f"body.ponder.{param}")


def test_a_judge_as_verifier_has_its_defaults_and_may_be_shown_the_reference() -> None:
    judge = request(ponder={"verifier": "judge"}).document["verifier"]
    assert judge == {
        "name": "judge",
        "model": None,
        "template": None,
        "n": 1,
        "max_tokens": 512,
        "use_reference": False,
    }
    shown = {"name": "judge", "use_reference": True, "template": "{answer} as {reference}?"}
    assert request(ponder={"verifier": shown, "reference": "6"}).document["verifier"]["use_reference"]


@pytest.mark.parametrize(
    ("options", "param", "code", "says"),
    [
        ({"verifier": {"name": "judge", "use_reference": True}}, "verifier.use_reference", "no_reference", "give one"),
        (
            {"verifier": {"name": "judge", "use_reference": True}, "reference": " "},
            "reference",
            "unreadable_reference",
            "empty",
        ),
        ({"verifier": "judge", "max_rounds": 2}, "max_rounds", "no_verifier", "only counts success"),
        ({"verifier": "judge", "oracle": True, "max_rounds": 2}, "max_rounds", "no_verifier", "only counts success"),
        ({"verifier": "judge", "strategy": "refine"}, "strategy", "no_verifier", "accept by judge"),
        ({"verifier": "judge", "strategy": TOURNAMENT}, "verifier", "judge_drives", "another template"),
        (
            {"verifier": {"name": "judge", "model": "demo", "n": 5}, "strategy": TOURNAMENT},
            "verifier",
            "judge_drives",
            "strategy.judge",
        ),
    ],
)
def test_a_judge_that_would_drive_what_it_counts_or_lacks_a_reference_is_refused(
    options: dict[str, Any], param: str, code: str, says: str
) -> None:
    with pytest.raises(InvalidLine, match=says) as caught:
        request(ponder=options)
    assert (caught.value.code, caught.value.param) == (code, f"body.ponder.{param}")


def test_a_judge_of_another_template_may_count_what_a_judge_has_chosen() -> None:
    counter = {"name": "judge", "template": "Is {answer} right?"}
    assert request(ponder={"verifier": counter, "strategy": TOURNAMENT}).document["verifier"]["name"] == "judge"
    own = {"template": "{answers}", "model": "demo"}
    request(ponder={"verifier": "judge", "strategy": TOURNAMENT | {"judge": own}})
