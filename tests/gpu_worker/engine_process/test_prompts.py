"""Long conversations take their own time, not the engine's."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import pytest

from ponder_worker.engine_process.prompts import ChatPrompt, Prompts, TextPrompt
from ponder_worker.models.checkpoint.chat_template import TemplateOptions
from ponder_worker.models.checkpoint.tokenizer import Tokenizer
from ponder_worker.models.model_error import InvalidConversation
from ponder_worker.search.search_error import PromptTooLong

_LONGEST = 4_000
_MESSAGES = [{"role": "user", "content": "a"}]


def _chat(messages: Sequence[dict[str, str]]) -> ChatPrompt:
    return ChatPrompt(messages, TemplateOptions())


_SHORT = _chat(_MESSAGES)
_LONG = _chat(_MESSAGES * 3_000)


class _Waiting:
    """Renders many messages when it is told to, few at once, and none that begin with a stop."""

    def __init__(self) -> None:
        self.go_on = threading.Event()
        self.threads: list[int] = []

    def render(self, messages: Sequence[dict[str, str]], options: TemplateOptions) -> list[int]:
        self.threads.append(threading.get_ident())
        if messages[0]["content"].startswith("stop"):
            raise InvalidConversation("no")
        if len(messages) > 1:
            assert self.go_on.wait(30)
        return [len(messages)]


@pytest.fixture
def tokenizer() -> _Waiting:
    return _Waiting()


def _prompts(tokenizer: _Waiting) -> Prompts:
    return Prompts(cast(Tokenizer, tokenizer), _LONGEST)


def test_short_conversations_are_rendered_while_long_ones_still_are(tokenizer: _Waiting) -> None:
    async def act() -> None:
        prompts = _prompts(tokenizer)
        long = [asyncio.create_task(prompts.make(_LONG)) for _ in range(2)]
        await asyncio.sleep(0)
        assert await prompts.make(_SHORT) == [1]
        assert prompts.num_made == 1
        assert not any(task.done() for task in long)
        tokenizer.go_on.set()
        assert await asyncio.gather(*long) == [[3_000], [3_000]]
        assert prompts.num_made == 3

    asyncio.run(act())
    assert len(set(tokenizer.threads)) == 2  # ours, and one for all long ones


def test_a_job_that_is_dropped_meanwhile_leaves_the_thread_to_the_next(tokenizer: _Waiting) -> None:
    async def act() -> None:
        prompts = _prompts(tokenizer)
        dropped, next_one = (asyncio.create_task(prompts.make(_LONG)) for _ in range(2))
        await asyncio.sleep(0)
        dropped.cancel()
        tokenizer.go_on.set()
        with pytest.raises(asyncio.CancelledError):
            await dropped
        assert await next_one == [3_000]

    asyncio.run(act())


@pytest.mark.parametrize("num", [1, 3_000])
def test_what_the_template_refuses_is_refused_from_either_thread(tokenizer: _Waiting, num: int) -> None:
    with pytest.raises(InvalidConversation, match="no"):
        asyncio.run(_prompts(tokenizer).make(_chat([{"role": "user", "content": "stop"}] * num)))


@pytest.mark.parametrize(
    "messages", [_MESSAGES * (_LONGEST + 1), [{"role": "user", "content": "a" * (16 * _LONGEST + 1)}]]
)
def test_what_cannot_fit_is_never_rendered(tokenizer: _Waiting, messages: list[dict[str, Any]]) -> None:
    with pytest.raises(PromptTooLong, match="4000 tokens of the context"):
        asyncio.run(_prompts(tokenizer).make(_chat(messages)))
    assert tokenizer.threads == []


_SAID = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "1 + 1?"}]


@pytest.mark.parametrize(
    ("messages", "options", "problem"),
    [
        (_SAID[1:], TemplateOptions(), "1 + 1?"),
        (_SAID, TemplateOptions(), "system: Be brief.\n\nuser: 1 + 1?"),
        ([_SAID[1], {"role": "assistant", "content": "It"}], TemplateOptions(continue_final_message=True), "1 + 1?"),
    ],
)
def test_a_judge_reads_what_the_conversation_says(
    tiny_llama: Path, messages: list[dict[str, str]], options: TemplateOptions, problem: str
) -> None:
    tokenizer = Tokenizer(tiny_llama)
    prompt = ChatPrompt(messages, options)
    assert prompt.problem(tokenizer) == problem
    assert tokenizer.decode(prompt.question(tokenizer, "Right?").ids(tokenizer)) == "user: Right?\nassistant: "


def test_a_judge_reads_the_prompt_of_a_completion_and_is_asked_as_the_model_can_be(tiny_llama: Path) -> None:
    tokenizer = Tokenizer(tiny_llama)
    for prompt in (TextPrompt("1 + 1"), TextPrompt(tokenizer.encode("1 + 1"))):
        assert prompt.problem(tokenizer) == "1 + 1"
        assert tokenizer.decode(prompt.question(tokenizer, "Right?").ids(tokenizer)) == "user: Right?\nassistant: "
