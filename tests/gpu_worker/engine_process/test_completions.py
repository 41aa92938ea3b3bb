"""Prompts that no template touches, and answers that were begun, over real engines with small random models."""

from __future__ import annotations

from typing import Any

import pytest

from ponder_worker.engine_process import job_request
from ponder_worker.engine_process.engine_core import EngineCore
from ponder_worker.engine_process.loading.engines import Engines
from ponder_worker.protocol import JobResult

from ..process import STRATEGIES
from ..searches import admitted, run

USER = {"role": "user", "content": "Compute 1 + 1."}
BEGUN = {"role": "assistant", "content": "It is "}


def made(engines: Engines, **changes: Any) -> JobResult:
    sampling = {"temperature": 0.0, "max_tokens": 20, "seed": 1, "stop": []}
    request = {"strategy": {"name": "direct"}, "sampling": sampling} | changes
    (result,) = run(EngineCore(engines, lambda: None), [admitted(7, **request)])
    return result


def ids_of(result: JobResult) -> list[int]:
    assert result.error is None
    return [token for node in result.tree["nodes"] for token in node["ids"]]


@pytest.mark.parametrize("strategy", STRATEGIES, ids=lambda spec: "-".join(map(str, spec.values())))
def test_every_strategy_completes_a_text_and_its_ids_alike(engines: Engines, strategy: dict[str, Any]) -> None:
    ids = engines.generator.tokenizer.encode("Once upon a time")
    text, by_ids = (made(engines, prompt=prompt, strategy=strategy) for prompt in ("Once upon a time", ids))
    assert text.usage.prompt_tokens == len(ids)
    assert ids_of(text) == ids_of(by_ids)
    assert text.choices[0].text == by_ids.choices[0].text != ""
    assert text.choices[0].score == by_ids.choices[0].score


def test_a_rendered_conversation_is_completed_as_the_chat_is(engines: Engines) -> None:
    prompt = engines.generator.tokenizer.render([USER])
    assert ids_of(made(engines, prompt=prompt)) == ids_of(made(engines, messages=[USER]))


def test_an_id_that_the_model_does_not_have_is_refused(engines: Engines) -> None:
    error = made(engines, prompt=[5, 300]).error
    assert error is not None
    assert (error.code, error.message) == ("invalid_request", "tokens[1] is 300; the vocabulary is 0 to 299")


def test_an_answer_that_was_begun_is_continued(engines: Engines) -> None:
    tokenizer = engines.generator.tokenizer
    prompt = [
        *tokenizer.render(
            [USER],
        ),
        *tokenizer.encode("It is "),
    ]
    opened = tokenizer.decode(tokenizer.render([USER]))
    continued = made(engines, messages=[USER, BEGUN], template={"continue_final_message": True})
    assert opened.endswith("assistant: ")
    assert ids_of(continued) == ids_of(made(engines, prompt=prompt))
    assert not continued.choices[0].text.startswith("It is ")
    closed = made(engines, messages=[USER, BEGUN])
    assert closed.usage.prompt_tokens > continued.usage.prompt_tokens


def test_the_beginning_of_an_answer_is_read_with_the_rest() -> None:
    request = {"messages": [USER, {"role": "assistant", "content": "So \\boxed{"}], "verifier": None}
    continued = job_request.prompt(request | {"template": {"continue_final_message": True}})
    assert job_request.answer_of(request, continued.begun)("36} it is 7") == "36"
    assert job_request.prompt(request).begun == ""


def test_feedback_after_an_answer_that_was_begun_keeps_it_in_one_turn(engines: Engines) -> None:
    tokenizer = engines.generator.tokenizer
    prompt = job_request.prompt({"messages": [USER, BEGUN], "template": {"continue_final_message": True}})
    assert tokenizer.decode(prompt.turn(tokenizer, "No.")) == "\nuser: No.\nassistant: "
