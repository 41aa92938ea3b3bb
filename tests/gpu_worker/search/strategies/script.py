"""An engine that says what a test has written down, so that a search can be worked out by hand."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from ponder_worker.search.engine_port import ScoreRequest, StreamEnd, StreamRequest, VerifierReply
from ponder_worker.search.expansion.search_limits import SearchLimits
from ponder_worker.search.search import Search
from ponder_worker.search.thought import Thought
from ponder_worker.search.tree.search_tree import SearchTree

from ..conftest import Attempt, run

_PROMPT = [1, 1]
_END = 0

Script = dict[str, list[tuple[str, float]]]
"""The steps that may follow a text, with their probabilities of being right, in the order in which they are requested.

A step that ends with a line break goes on; behind any other one the model ends.
"""


@dataclass(eq=False)
class _Line:
    tokens: list[int]
    num_prompt: int
    done: Callable[[StreamEnd], None]
    end: StreamEnd

    @property
    def logprobs(self) -> Sequence[float]:
        return [0.0] * (len(self.tokens) - self.num_prompt)

    @property
    def top_logprobs(self) -> Sequence[Sequence[tuple[int, float]]]:
        return ()


@dataclass
class ScriptedEngine:
    script: Script
    thought: Thought | None = None
    asked: list[str] = field(default_factory=list)
    """The texts that were continued, one by one."""
    _lines: list[_Line] = field(default_factory=list)
    _scores: list[tuple[float, Callable[[float], None]]] = field(default_factory=list)

    def generate(self, request: StreamRequest, done: Callable[[StreamEnd], None]) -> _Line:
        before = self.decode(request.tokens)
        text, _ = self.script[before][self.asked.count(before)]
        self.asked.append(before)
        goes_on = text.endswith("\n") and request.separator == "\n"
        ids = [*map(ord, text)] if goes_on else [*map(ord, text), _END]
        line = _Line(request.tokens + ids, len(request.tokens), done, StreamEnd("separator" if goes_on else "stop"))
        assert len(ids) <= request.max_tokens
        self._lines.append(line)
        return line

    def speculate(self, request: StreamRequest, done: Callable[[StreamEnd], None]) -> None:
        """There is no room for a guess."""

    def adopt(self, stream: Any) -> None:
        raise AssertionError("nothing was guessed")

    def score(self, step: ScoreRequest, done: Callable[[float], None]) -> None:
        chances = dict(self.script[step.text_before])
        self._scores.append((math.log(chances[step.text]), done))

    def cancel_scores(self) -> None:
        self._scores.clear()

    def cancel(self, stream: Any) -> None:
        raise AssertionError("nothing is cancelled here")

    def verify(self, text: str, answer: str | None, done: Callable[[VerifierReply], None]) -> None:
        raise AssertionError("nothing is verified here")

    def encode(self, text: str) -> list[int]:
        return [*map(ord, text)]

    async def question(self, text: str) -> list[int]:
        raise AssertionError("nobody judges here")

    def user_turn(self, text: str) -> list[int]:
        raise AssertionError("nobody speaks here")

    def decode(self, ids: Sequence[int]) -> str:
        return "".join(chr(token) for token in ids if token > 1)

    def step(self) -> None:
        lines, self._lines = self._lines, []
        scores, self._scores = self._scores, []
        for line in lines:
            line.done(line.end)
        for score, done in scores:
            done(score)


def play(script: Script, spec: dict[str, Any], *, source: Any = None) -> tuple[list[tuple[str, float]], list[str]]:
    """Returns (text, probability) of the ranked candidates, and the texts that were continued, in order.

    source: where its draws come from instead of its seeds.
    """
    engine = ScriptedEngine(script)
    search = Search(SearchTree(0, _PROMPT), engine, SearchLimits(None, None, 1000), aggregate="last")
    if source is not None:
        search.random = source  # type: ignore[method-assign]
    ranked = run(Attempt(search, engine, []), spec)  # type: ignore[arg-type]
    assert ranked is not None
    return [
        (candidate.text, 0.0 if candidate.score is None else round(math.exp(candidate.score), 9))
        for candidate in ranked
    ], engine.asked
