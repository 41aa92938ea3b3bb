"""From a conversation to the ids of its prompt, without holding up the steps of the engine."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

from ponder.domain.context import cannot_fit
from ponder_worker.models.checkpoint.tokenizer import Tokenizer
from ponder_worker.search.errors import PromptTooLong

_QUICK = 20_000
"""Characters, of which a message of its own costs as much as `_MESSAGE` of them: milliseconds. To hand less over to
another thread takes longer than to do it."""
_MESSAGE = 100


class Prompts:
    """One thread for the long conversations, one after the other; the short ones take nobody's time."""

    def __init__(self, tokenizer: Tokenizer, longest: int) -> None:
        """longest: tokens of the model's context."""
        self.num_made = 0
        self._tokenizer = tokenizer
        self._longest = longest
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="prompts")

    async def make(self, messages: Sequence[Mapping[str, str]]) -> list[int]:
        """Raises PromptTooLong for what cannot fit, before it is rendered, and InvalidConversation."""
        num, characters = len(messages), sum(len(message["content"]) for message in messages)
        if cannot_fit(num, characters, self._longest):
            raise PromptTooLong(
                f"{num} messages of {characters} characters cannot fit into the {self._longest} tokens of the context"
            )
        try:
            if characters + num * _MESSAGE <= _QUICK:
                return self._tokenizer.render(messages)
            return await asyncio.get_running_loop().run_in_executor(self._thread, self._tokenizer.render, messages)
        finally:
            self.num_made += 1
