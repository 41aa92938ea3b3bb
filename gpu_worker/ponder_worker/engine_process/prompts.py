"""Renders conversations into prompts without holding up the engine's steps."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

from ponder.domain.context import cannot_fit
from ponder_worker.models.checkpoint.tokenizer import Tokenizer
from ponder_worker.search.search_error import PromptTooLong

_QUICK_CHARACTERS = 20_000
"""A shorter conversation is rendered in milliseconds, which is less than it takes to hand it to another thread."""
_MESSAGE_CHARACTERS = 100
"""The overhead of one message, in characters."""


class Prompts:
    """Renders long conversations one by one in a thread, and short ones at once. longest: the context, in tokens."""

    def __init__(self, tokenizer: Tokenizer, longest: int) -> None:
        self.num_made = 0
        self._tokenizer = tokenizer
        self._longest = longest
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="prompts")

    async def make(self, messages: Sequence[Mapping[str, str]]) -> list[int]:
        """Returns the prompt's ids. Raises InvalidConversation, and PromptTooLong before it renders what cannot fit."""
        num, characters = len(messages), sum(len(message["content"]) for message in messages)
        if cannot_fit(num, characters, self._longest):
            raise PromptTooLong(
                f"{num} messages of {characters} characters cannot fit into the {self._longest} tokens of the context"
            )
        try:
            if characters + num * _MESSAGE_CHARACTERS <= _QUICK_CHARACTERS:
                return self._tokenizer.render(messages)
            return await asyncio.get_running_loop().run_in_executor(self._thread, self._tokenizer.render, messages)
        finally:
            self.num_made += 1
