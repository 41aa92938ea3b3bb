"""An engine with a judge whose replies a test writes down, by what it is asked."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

from ponder_worker.search.engine_port import StreamEnd, StreamRequest
from ponder_worker.search.expansion.search_limits import SearchLimits
from ponder_worker.search.search import Search
from ponder_worker.search.thought import Thought
from ponder_worker.search.tree.search_tree import SearchTree

from .conftest import END, JOB_SEED, PROMPT, StubEngine, StubStream

_FIRST = 1000
"""Ids from here on are characters."""

T = TypeVar("T")
Reply = Callable[[str, int], str]
"""What the judge says to a question, and to its n-th reply."""


class JudgeEngine(StubEngine):
    """Its judge says all of a reply at once. Whatever else is asked of it is made as ever."""

    def __init__(self, reply: Reply, thought: Thought | None = None) -> None:
        super().__init__(random.Random(0), thought)
        self.reply = reply
        self.context_length = 100_000
        self.questions: list[str] = []
        self.requests: list[StreamRequest] = []

    async def question(self, text: str) -> list[int]:
        return [*map(_id, text)]

    def generate(self, request: StreamRequest, done: Callable[[StreamEnd], None]) -> StubStream:
        if not request.judges:
            return super().generate(request, done)
        question = self.decode(request.tokens[: request.prompt_length])
        said = [*map(_id, self.reply(question, self.questions.count(question))), END][: request.max_tokens]
        self.questions.append(question)
        self.requests.append(request)
        stream = super().generate(request, done)
        stream.draw = lambda seed, position: said[position - request.start]
        return stream

    def decode(self, ids: Sequence[int]) -> str:
        return "".join(
            chr(token - _FIRST) if token >= _FIRST else super(JudgeEngine, self).decode([token]) for token in ids
        )


def _id(character: str) -> int:
    return _FIRST + ord(character)


def judged_by(
    reply: Reply | str,
    *,
    limits: SearchLimits | None = None,
    thought: Thought | None = None,
    tree: SearchTree | None = None,
) -> tuple[Search, JudgeEngine]:
    engine = JudgeEngine((lambda question, number: reply) if isinstance(reply, str) else reply, thought)
    limits = limits or SearchLimits(None, None, 40)
    return Search(tree or SearchTree(JOB_SEED, PROMPT), engine, limits), engine


def finish(engine: JudgeEngine, work: Awaitable[T], *, after_step: Callable[[], None] = lambda: None) -> T:
    """Runs what a search does to its end, one step of the engine after the other."""

    async def live() -> T:
        task = asyncio.ensure_future(work)
        for _ in range(20_000):
            await asyncio.sleep(0)
            if task.done():
                break
            engine.step()
            after_step()
        return task.result()

    return asyncio.run(live())
