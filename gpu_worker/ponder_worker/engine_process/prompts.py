"""A job's prompt, and its rendering without holding up the engine's steps."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Protocol

from ponder.domain.context import cannot_fit
from ponder_worker.models.checkpoint.chat_template import TemplateOptions
from ponder_worker.models.checkpoint.tokenizer import Tokenizer
from ponder_worker.models.model_error import InvalidConversation
from ponder_worker.search.search_error import PromptTooLong

_QUICK_CHARACTERS = 20_000
"""A shorter conversation is rendered in milliseconds, which is less than it takes to hand it to another thread."""
_MESSAGE_CHARACTERS = 100
"""The overhead of one message, in characters."""


class Prompt(Protocol):
    """A job's prompt. All methods raise InvalidConversation."""

    @property
    def size(self) -> tuple[int, int]:
        """How many messages it has, and how many characters."""

    @property
    def begun(self) -> str:
        """The beginning of the answer, if the model is to continue it."""

    def ids(self, tokenizer: Tokenizer) -> list[int]:
        """Returns what the generator reads."""

    def problem(self, tokenizer: Tokenizer) -> str:
        """Returns what it says as plain text, with the speakers if there are several messages."""

    def question(self, tokenizer: Tokenizer, text: str) -> Prompt:
        """Returns a prompt that asks the same model something else."""

    def turn(self, tokenizer: Tokenizer, text: str) -> list[int]:
        """Returns ids that end the model's turn, say this as the user, and open a new turn."""

    def reward_ids(self, tokenizer: Tokenizer, generator: Tokenizer) -> list[int]:
        """Returns what a reward model of another tokenizer reads before the answer."""


@dataclass(frozen=True, slots=True)
class ChatPrompt:
    """A conversation. Each message has its content as one text."""

    messages: Sequence[dict[str, str]]
    options: TemplateOptions

    @property
    def size(self) -> tuple[int, int]:
        return len(self.messages), sum(len(message["content"]) for message in self.messages)

    @property
    def begun(self) -> str:
        return self.messages[-1]["content"] if self.options.continue_final_message else ""

    def ids(self, tokenizer: Tokenizer) -> list[int]:
        return tokenizer.render(self.messages, self.options)

    def problem(self, tokenizer: Tokenizer) -> str:
        said = self.messages[:-1] if self.options.continue_final_message else self.messages
        if len(said) == 1:
            return said[0]["content"]
        return "\n\n".join(f"{message['role']}: {message['content']}" for message in said)

    def question(self, tokenizer: Tokenizer, text: str) -> Prompt:
        return ChatPrompt([{"role": "user", "content": text}], TemplateOptions(self.options.kwargs))

    def turn(self, tokenizer: Tokenizer, text: str) -> list[int]:
        return tokenizer.turn(self.messages, text, self.options)

    def reward_ids(self, tokenizer: Tokenizer, generator: Tokenizer) -> list[int]:
        # The variables are those of the generator's template.
        continues = self.options.continue_final_message
        return tokenizer.render(self.messages, TemplateOptions(continue_final_message=continues))


@dataclass(frozen=True, slots=True)
class TextPrompt:
    """A text or token ids, which no template touches."""

    prompt: str | Sequence[int]

    @property
    def size(self) -> tuple[int, int]:
        return 1, len(self.prompt) if isinstance(self.prompt, str) else 0

    @property
    def begun(self) -> str:
        return ""

    def ids(self, tokenizer: Tokenizer) -> list[int]:
        return tokenizer.encode_prompt(self.prompt) if isinstance(self.prompt, str) else list(self.prompt)

    def problem(self, tokenizer: Tokenizer) -> str:
        return self.prompt if isinstance(self.prompt, str) else tokenizer.decode(self.prompt)

    def question(self, tokenizer: Tokenizer, text: str) -> Prompt:
        if not tokenizer.has_template:
            return TextPrompt(text)
        return ChatPrompt([{"role": "user", "content": text}], TemplateOptions())

    def turn(self, tokenizer: Tokenizer, text: str) -> list[int]:
        raise InvalidConversation("a text completion has no further turn: ask for a chat completion")

    def reward_ids(self, tokenizer: Tokenizer, generator: Tokenizer) -> list[int]:
        text = self.problem(generator)
        return (
            tokenizer.render([{"role": "user", "content": text}])
            if tokenizer.has_template
            else tokenizer.encode_prompt(text)
        )


class Prompts:
    """Renders long conversations one by one in a thread, and short ones at once. longest: the context, in tokens."""

    def __init__(self, tokenizer: Tokenizer, longest: int) -> None:
        self.num_made = 0
        self._tokenizer = tokenizer
        self._longest = longest
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="prompts")

    async def make(self, prompt: Prompt) -> list[int]:
        """Returns the prompt's ids. Raises InvalidConversation, and PromptTooLong before it renders what cannot fit."""
        num, characters = prompt.size
        if cannot_fit(num, characters, self._longest):
            raise PromptTooLong(
                f"{num} messages of {characters} characters cannot fit into the {self._longest} tokens of the context"
            )
        try:
            if characters + num * _MESSAGE_CHARACTERS <= _QUICK_CHARACTERS:
                return prompt.ids(self._tokenizer)
            return await asyncio.get_running_loop().run_in_executor(self._thread, prompt.ids, self._tokenizer)
        finally:
            self.num_made += 1
