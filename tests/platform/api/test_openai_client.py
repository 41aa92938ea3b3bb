"""OpenAI's official package works with ponder if only its base_url is set."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import openai
import pytest
from openai.types import Batch, Completion
from openai.types.chat import ChatCompletion

Line = Callable[..., dict[str, Any]]
Submitted = Callable[..., Batch]


def results(client: openai.OpenAI, file_id: str | None) -> list[dict[str, Any]]:
    assert file_id is not None
    return [json.loads(one) for one in client.files.content(file_id).text.splitlines()]


def test_a_batch_is_submitted_polled_and_fetched(
    client: openai.OpenAI, worker: Any, line: Line, submitted: Submitted, passed: Any
) -> None:
    batch = submitted([line("a"), line("b", model="nobody")], strategy={"name": "best_of_n", "n": 4})
    assert batch.status == "validating"
    worker.validate()
    assert client.batches.retrieve(batch.id).status == "in_progress"
    worker.work(passed)
    batch = client.batches.retrieve(batch.id)
    assert batch.status == "completed"
    assert batch.request_counts is not None
    assert batch.request_counts.model_dump() == {"total": 2, "completed": 1, "failed": 1}
    assert batch.usage is not None
    assert batch.usage.model_dump() == {
        "input_tokens": 9,
        "input_tokens_details": {"cached_tokens": 4},
        "output_tokens": 12,
        "output_tokens_details": {"reasoning_tokens": 3, "judge_tokens": 0},
        "total_tokens": 21,
    }
    [output] = results(client, batch.output_file_id)
    assert set(output) == {"id", "custom_id", "response", "error"}
    assert (output["custom_id"], output["error"], output["response"]["status_code"]) == ("a", None, 200)
    [error] = results(client, batch.error_file_id)
    assert (error["custom_id"], error["response"]["status_code"]) == ("b", 400)
    assert error["error"]["code"] == error["response"]["body"]["error"]["code"] == "model_not_found"


def test_every_field_of_the_batch_object_is_there(
    client: openai.OpenAI, worker: Any, line: Line, submitted: Submitted, passed: Any
) -> None:
    batch = submitted([line()])
    worker.validate()
    worker.work(passed)
    answer = client.batches.with_raw_response.retrieve(batch.id).http_response.json()
    Batch.model_validate(answer, strict=True)
    assert set(Batch.model_fields) <= set(answer)
    assert answer["created_at"] <= answer["in_progress_at"] <= answer["finalizing_at"] <= answer["completed_at"]
    assert answer["expires_at"] == pytest.approx(answer["created_at"] + 86_400, abs=1)
    assert answer["model"] == "demo"
    assert answer["errors"] is None


def test_a_result_is_a_chat_completion_with_ponders_own_beside_it(
    client: openai.OpenAI, worker: Any, line: Line, submitted: Submitted, passed: Any
) -> None:
    batch = submitted([line(metadata={"level": "3"}, ponder={"reference": "7"})])
    worker.validate()
    worker.work(passed)
    [output] = results(client, client.batches.retrieve(batch.id).output_file_id)
    completion = ChatCompletion.model_validate(output["response"]["body"], strict=True)
    assert completion.choices[0].message.content == "3 + 4 = 7\nAnswer: 7"
    assert completion.choices[0].finish_reason == "stop"
    assert completion.usage is not None
    assert completion.usage.total_tokens == 21
    own = output["response"]["body"]["ponder"]
    assert (own["verdict"], own["answer"], own["strategy"], own["level"]) == ("passed", "7", "direct", "3")
    assert own["cost"]["direct_nanodollars"] > 0


TOKEN = {"token": "7", "logprob": -0.5, "bytes": [55]}
LOGPROBS = {
    "content": [
        {"token": "A:", "logprob": -0.1, "bytes": [65, 58], "top_logprobs": []},
        TOKEN | {"top_logprobs": [{"token": "8", "logprob": -0.4, "bytes": [56]}]},
    ],
    "refusal": None,
}


def answered(passed: Any, **choice: Any) -> Any:
    """Settles jobs with one choice."""
    whole = {"text": "A:7", "answer": "7", "finish_reason": "stop", "score": None, "logprobs": LOGPROBS} | choice
    return lambda job_id: replace(passed(job_id), choices=[whole])


def test_a_text_completion_is_openais_object(client: openai.OpenAI, worker: Any, passed: Any) -> None:
    body = {"model": "demo", "prompt": [5, 6], "max_tokens": 9, "logprobs": 1}
    lines = json.dumps({"custom_id": "a", "method": "POST", "url": "/v1/completions", "body": body}).encode()
    file = client.files.create(file=("lines.jsonl", lines), purpose="batch")
    batch = client.batches.create(input_file_id=file.id, endpoint="/v1/completions", completion_window="24h")
    worker.validate()
    worker.work(answered(passed))
    batch = client.batches.retrieve(batch.id)
    assert batch.endpoint == "/v1/completions"
    [output] = results(client, batch.output_file_id)
    completion = Completion.model_validate(output["response"]["body"], strict=True)
    assert (completion.object, completion.choices[0].text) == ("text_completion", "A:7")
    assert completion.choices[0].logprobs is not None
    assert completion.choices[0].logprobs.model_dump() == {
        "text_offset": [0, 2],
        "token_logprobs": [-0.1, -0.5],
        "tokens": ["A:", "7"],
        "top_logprobs": [{"A:": -0.1}, {"7": -0.5, "8": -0.4}],
    }
    assert output["response"]["body"]["ponder"]["answer"] == "7"


def test_a_thought_is_a_field_of_its_own(
    client: openai.OpenAI, worker: Any, line: Line, submitted: Submitted, passed: Any
) -> None:
    batch = submitted([line()])
    worker.validate()
    worker.work(answered(passed, reasoning="3 and 4 …"))
    [output] = results(client, client.batches.retrieve(batch.id).output_file_id)
    message = output["response"]["body"]["choices"][0]["message"]
    assert message == {
        "role": "assistant", "content": "A:7", "refusal": None, "reasoning_content": "3 and 4 …",
        "reasoning": "3 and 4 …",
    }  # fmt: skip
    ChatCompletion.model_validate(output["response"]["body"], strict=True)


@pytest.mark.parametrize("asked_first", [True, False])
def test_an_output_file_knows_its_size(
    client: openai.OpenAI, worker: Any, line: Line, submitted: Submitted, passed: Any, asked_first: bool
) -> None:
    """A list does not make files, because with a million results that would take minutes."""
    batch = submitted([line(str(number)) for number in range(250)])
    worker.validate()
    worker.work(passed)
    file_id = client.batches.retrieve(batch.id).output_file_id
    assert file_id is not None
    [listed] = client.files.list(purpose="batch_output")
    assert (listed.id, listed.bytes) == (file_id, 0)
    asked = client.files.retrieve(file_id) if asked_first else None
    content = client.files.content(file_id).content
    assert [json.loads(one)["custom_id"] for one in content.splitlines()] == [str(number) for number in range(250)]
    file = asked or client.files.retrieve(file_id)
    assert (file.bytes, file.purpose, file.status) == (len(content), "batch_output", "processed")
    [listed] = client.files.list(purpose="batch_output")
    assert listed.bytes == len(content)


def test_a_cancelled_batch_keeps_what_was_done(
    client: openai.OpenAI, worker: Any, line: Line, submitted: Submitted, passed: Any
) -> None:
    batch = submitted([line("a"), line("b")])
    worker.validate()
    first, second = worker.claim()
    worker.tick([passed(first)], [first, second])
    assert client.batches.cancel(batch.id).status == "cancelling"
    worker.tick(work=[second])
    batch = client.batches.retrieve(batch.id)
    assert batch.status == "cancelled"
    assert batch.cancelled_at is not None
    assert [one["custom_id"] for one in results(client, batch.output_file_id)] == ["a"]
    [error] = results(client, batch.error_file_id)
    assert (error["custom_id"], error["response"], error["error"]["code"]) == ("b", None, "batch_cancelled")


def test_cancelling_twice_is_harmless_and_cancelling_too_late_is_a_conflict(
    client: openai.OpenAI, worker: Any, line: Line, submitted: Submitted, passed: Any
) -> None:
    batch = submitted([line()])
    client.batches.cancel(batch.id)
    assert client.batches.cancel(batch.id).status == "cancelling"
    done = submitted([line()])
    worker.validate()
    worker.work(passed)
    with pytest.raises(openai.ConflictError):
        client.batches.cancel(done.id)


def test_a_failed_job_is_in_the_error_file_and_can_be_retried(
    client: openai.OpenAI, http: Any, worker: Any, line: Line, submitted: Submitted, passed: Any, failed: Any
) -> None:
    batch = submitted([line("a"), line("b")])
    worker.validate()
    first, second = worker.claim()
    worker.tick([passed(first), failed(second)])
    batch = client.batches.retrieve(batch.id)
    assert batch.status == "completed"
    [error] = results(client, batch.error_file_id)
    assert error["error"] == {"code": "worker_lost", "message": "lost three times", "param": None, "line": 2}
    again = http.post(f"/v1/batches/{batch.id}/retry", headers={"Idempotency-Key": "again"}).json()
    assert (again["status"], again["request_counts"]["total"]) == ("in_progress", 1)
    assert again["ponder"]["retry_of"] == batch.id
    twice = http.post(f"/v1/batches/{batch.id}/retry", headers={"Idempotency-Key": "again"}).json()
    assert twice["id"] == again["id"]
    worker.work(passed)
    [output] = results(client, client.batches.retrieve(again["id"]).output_file_id)
    assert output["custom_id"] == "b"
    nothing = http.post(f"/v1/batches/{again['id']}/retry")
    assert nothing.status_code == 409


def test_lists_go_on_after_an_id(client: openai.OpenAI, line: Line, submitted: Submitted) -> None:
    made = [submitted([line()]).id for _ in range(5)]
    first = client.batches.list(limit=2)
    assert [batch.id for batch in first.data] == made[:2:-1]
    assert first.has_more
    assert [batch.id for batch in client.batches.list(limit=2)] == made[::-1]
    assert len(list(client.files.list(limit=2))) == 5
    oldest_first = [file.created_at for file in client.files.list(limit=2, order="asc")]
    assert oldest_first == sorted(oldest_first)
    assert client.files.list(purpose="batch_output").data == []


def test_files_come_back_as_they_went_in_and_can_be_deleted(client: openai.OpenAI) -> None:
    content = "naïve ∀ text\r\n\n".encode() * 200_000
    file = client.files.create(file=("ü.jsonl", content), purpose="batch")
    assert (file.bytes, file.filename, file.status) == (len(content), "ü.jsonl", "processed")
    assert client.files.retrieve(file.id) == file
    assert client.files.content(file.id).content == content
    assert client.files.delete(file.id).deleted
    for use in (client.files.retrieve, client.files.content, client.files.delete):
        with pytest.raises(openai.NotFoundError):
            use(file.id)


def test_a_file_that_is_being_validated_cannot_be_deleted(
    client: openai.OpenAI, worker: Any, line: Line, submitted: Submitted
) -> None:
    batch = submitted([line()])
    with pytest.raises(openai.ConflictError):
        client.files.delete(batch.input_file_id)
    worker.validate()
    assert client.files.delete(batch.input_file_id).deleted


def test_models_are_what_workers_registered(client: openai.OpenAI, worker: Any) -> None:
    [model] = client.models.list().data
    assert (model.id, model.object, model.owned_by) == ("demo", "model", "ponder")
    assert model.model_extra is not None
    assert model.model_extra["ponder"] == {
        "fingerprint": "f0",
        "context_length": 512,
        "has_reward_model": True,
        "live_workers": 1,
    }
    assert client.models.retrieve("demo") == model
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("nobody/such")


def test_the_same_idempotency_key_makes_one_batch(client: openai.OpenAI, line: Line) -> None:
    file = client.files.create(file=("x.jsonl", json.dumps(line()).encode()), purpose="batch")

    def submit(window: Any) -> str:
        return client.batches.create(
            input_file_id=file.id,
            endpoint="/v1/chat/completions",
            completion_window=window,
            extra_headers={"Idempotency-Key": "once"},
        ).id

    assert submit("24h") == submit("24h")
    with pytest.raises(openai.ConflictError):
        submit("48h")
    assert len(client.batches.list().data) == 1


@pytest.mark.parametrize("window", ["1h", "90m", "14d", "1d12h", "336h"])
def test_any_window_from_an_hour_to_two_weeks(client: openai.OpenAI, line: Line, window: Any) -> None:
    file = client.files.create(file=("x.jsonl", b"{}"), purpose="batch")
    batch = client.batches.create(
        input_file_id=file.id, endpoint="/v1/chat/completions", completion_window=window, metadata={"a": "b"}
    )
    assert (batch.completion_window, batch.metadata) == (window, {"a": "b"})


@pytest.mark.parametrize(
    ("change", "param"),
    [
        ({"completion_window": "59m"}, "completion_window"),
        ({"completion_window": "15d"}, "completion_window"),
        ({"completion_window": "soon"}, "completion_window"),
        ({"endpoint": "/v1/embeddings"}, "endpoint"),
        ({"metadata": {"a": 1}}, "metadata.a"),
        ({"metadata": {"a": "\x00"}}, None),
        ({"metadata": {"a": "\ud800"}}, None),
        ({"metadata": {str(number): "" for number in range(17)}}, "metadata"),
        ({"ponder": {"budget": {"tokens": -1}}}, "ponder.budget.tokens"),
        ({"ponder": {"strategy": {"name": "magic"}}}, "ponder.strategy"),
        ({"ponder": {"priority": "urgent"}}, "ponder.priority"),
        ({"ponder": {"nonsense": 1}}, "ponder.nonsense"),
        ({"output_expires_after": {"anchor": "created_at", "seconds": 60}}, "output_expires_after.seconds"),
    ],
)
def test_a_batch_that_cannot_be_honoured_is_refused_by_name(
    client: openai.OpenAI, http: Any, change: dict[str, Any], param: str | None
) -> None:
    file = client.files.create(file=("x.jsonl", b"{}"), purpose="batch")
    body = {"input_file_id": file.id, "endpoint": "/v1/chat/completions", "completion_window": "24h"} | change
    answer = http.post("/v1/batches", content=json.dumps(body), headers={"Content-Type": "application/json"})
    assert answer.status_code == 400
    error = answer.json()["error"]
    assert error["type"] == "invalid_request_error"
    assert error["param"] == param


def test_an_upload_for_another_purpose_is_refused(client: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        client.files.create(file=("x.jsonl", b"{}"), purpose="fine-tune")
    assert caught.value.param == "purpose"
    with pytest.raises(openai.BadRequestError) as caught:
        client.files.create(
            file=("x.jsonl", b"{}"), purpose="batch", expires_after={"anchor": "created_at", "seconds": 3600}
        )
    assert caught.value.param == "expires_after"


def test_errors_data_holds_the_first_thousand_and_the_error_file_all(
    client: openai.OpenAI, worker: Any, line: Line, submitted: Submitted
) -> None:
    batch = submitted([line("good"), *(line(str(number), n=0) for number in range(1_200))])
    worker.validate()
    batch = client.batches.retrieve(batch.id)
    assert batch.errors is not None
    assert batch.errors.data is not None
    assert [error.line for error in batch.errors.data] == list(range(2, 1_002))
    assert (batch.errors.data[0].code, batch.errors.data[0].param) == ("invalid_value", "body.n")
    assert batch.request_counts is not None
    assert (batch.request_counts.total, batch.request_counts.failed) == (1_201, 1_200)
    client.batches.cancel(batch.id)
    worker.validate()
    errors = results(client, client.batches.retrieve(batch.id).error_file_id)
    assert [error["custom_id"] for error in errors] == ["good", *map(str, range(1_200))]


def test_a_strict_batch_fails_and_says_which_line(
    client: openai.OpenAI, worker: Any, line: Line, submitted: Submitted
) -> None:
    batch = submitted([line("a"), line("b", tools=[{"type": "function"}])], strict=True)
    worker.validate()
    batch = client.batches.retrieve(batch.id)
    assert batch.status == "failed"
    assert batch.failed_at is not None
    assert batch.errors is not None
    assert batch.errors.data is not None
    assert [(error.code, error.line) for error in batch.errors.data] == [("strict", None), ("unsupported_field", 2)]
    [error] = results(client, batch.error_file_id)
    assert (error["custom_id"], error["error"]["param"]) == ("b", "body.tools")
