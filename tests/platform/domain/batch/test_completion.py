"""A line of a batch of text completions becomes the request of a job, or is refused by name."""

from __future__ import annotations

from typing import Any

import pytest

from ponder.domain.batch.endpoint import CHAT, COMPLETIONS
from ponder.domain.batch.options import BatchOptions
from ponder.domain.batch.request import JobRequest, ServedModel, Terms, parse
from ponder.errors import InvalidLine

DEMO = ServedModel("demo", "f0", 512, has_reward_model=True)
SECRET = "the launch code is 0000"


def request(url: str = COMPLETIONS, **body: Any) -> JobRequest:
    line = {"custom_id": "a", "method": "POST", "url": url, "body": {"model": "demo", "prompt": SECRET} | body}
    return parse(line, 1, Terms(BatchOptions(), {"demo": DEMO}, COMPLETIONS))


def test_a_bare_line_asks_for_sixteen_tokens_as_openai_does() -> None:
    document = request().document
    assert document["prompt"] == SECRET
    assert "messages" not in document
    assert (document["sampling"]["max_tokens"], document["sampling"]["logprobs"]) == (16, False)
    assert request(max_tokens=300).document["sampling"]["max_tokens"] == 300


@pytest.mark.parametrize(
    ("sent", "prompt"), [([5, 6], [5, 6]), (["text"], "text"), ([[5, 6]], [5, 6]), ("  text ", "  text ")]
)
def test_a_prompt_is_text_or_token_ids_alone_or_in_a_list_of_one(sent: Any, prompt: Any) -> None:
    assert request(prompt=sent).document["prompt"] == prompt


@pytest.mark.parametrize(("num", "ranked"), [(0, {}), (5, {"top_logprobs": 5})])
def test_logprobs_is_the_number_of_likeliest_tokens(num: int, ranked: dict[str, int]) -> None:
    sampling = request(logprobs=num).document["sampling"]
    assert sampling == request().document["sampling"] | {"logprobs": True} | ranked


def test_fields_that_ask_for_nothing_are_accepted() -> None:
    assert request(echo=False, best_of=1, suffix=None, stream=False).custom_id == "a"


@pytest.mark.parametrize(
    ("body", "code", "param", "said"),
    [
        ({"prompt": None}, "invalid_value", "body.prompt", "text or a list of token ids"),
        ({"prompt": ""}, "invalid_value", "body.prompt", "not empty"),
        ({"prompt": []}, "invalid_value", "body.prompt", "not empty"),
        ({"prompt": [1, -2]}, "invalid_value", "body.prompt", "token ids"),
        ({"prompt": [1, True]}, "invalid_value", "body.prompt", "token ids"),
        ({"prompt": ["a", "b"]}, "invalid_value", "body.prompt", "give each a line of its own"),
        ({"prompt": "x" * 9000}, "context_length_exceeded", "body.prompt", "9000 characters"),
        ({"prompt": [1] * 513}, "context_length_exceeded", "body.prompt", "513 token ids"),
        ({"logprobs": 21}, "invalid_value", "body.logprobs", "20"),
        ({"echo": True}, "unsupported_field", "body.echo", "the prompt is in the line"),
        ({"best_of": 4}, "unsupported_field", "body.best_of", "best_of_n"),
        ({"messages": [{}]}, "unknown_field", "body.messages", CHAT),
        ({"chat_template_kwargs": {"a": 1}}, "unknown_field", "body.chat_template_kwargs", CHAT),
        ({"url": CHAT}, "invalid_url", "url", COMPLETIONS),
        (
            {"ponder": {"strategy": "refine", "verifier": {"name": "regex", "pattern": "x"}}},
            "invalid_value",
            "body.ponder.strategy",
            CHAT,
        ),
    ],
)
def test_a_bad_line_is_refused_with_code_place_and_remedy(
    body: dict[str, Any], code: str, param: str, said: str
) -> None:
    with pytest.raises(InvalidLine) as caught:
        request(**body)
    assert (caught.value.code, caught.value.param) == (code, param)
    assert said in caught.value.message
    assert SECRET not in caught.value.message
