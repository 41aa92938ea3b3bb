"""What the search needs of an engine. The tests have one that computes nothing."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from ponder_worker.search.expansion.thought import Thought


class Stream(Protocol):
    """One token stream, read-only. tokens: prompt and generated ids so far; logprobs: of those generated here."""

    @property
    def tokens(self) -> Sequence[int]: ...
    @property
    def logprobs(self) -> Sequence[float]: ...


@dataclass(frozen=True, slots=True)
class End:
    """How a stream ended: "stop" (end token or stop string), "separator" or "length".

    stop_chars: characters at the end of the turn's text, from a stop string on, that are not part of the answer: more
    than the stream's own where the string began before it.
    """

    reason: str
    stop_chars: int = 0


@dataclass(frozen=True, slots=True)
class Order:
    """tokens after `start` were generated before and are gone on from; `max_tokens` counts from `start`.

    turn_start: tokens from there on are the model's own turn, other nodes' before `start`.
    num_former: tokens at the front that this attempt did not generate: the prompt, and what a former attempt made.
    """

    tokens: list[int]
    start: int
    turn_start: int
    max_tokens: int
    seed: int
    separator: str | None
    num_former: int


@dataclass(frozen=True, slots=True)
class Step:
    """What a reward model is to score: the last part of a path, after all that comes before it.

    ids_before includes the prompt; text_before is the generated text only, and steps_before the same, step by step.
    """

    ids_before: list[int]
    ids: list[int]
    text_before: str
    text: str
    steps_before: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Verdict:
    """passed: None where nobody can judge. feedback: what was wrong, for the next try, or why nobody can; or empty."""

    passed: bool | None
    feedback: str = ""


class Engine(Protocol):
    """One job's line to the engines. What it is told to do begins with the next step; `done` is called after a step."""

    @property
    def thought(self) -> Thought | None:
        """How the generator thinks; None for a model that does not think before it answers."""

    @property
    def can_score(self) -> bool:
        """Whether there is a reward model."""

    def generate(self, order: Order, done: Callable[[End], None]) -> Stream: ...

    def speculate(self, order: Order, done: Callable[[End], None]) -> Stream | None:
        """A guess, for which only room that nobody else wants is used; None where it would not pay."""

    def adopt(self, stream: Stream) -> None:
        """A guess that is wanted: from now on it is a stream like any other."""

    def cancel(self, stream: Stream) -> None:
        """`done` will not be called."""

    def score(self, step: Step, done: Callable[[float], None]) -> None:
        """Of the step alone: the logarithm of a probability. Raises NoRewardModel."""

    def cancel_scores(self) -> None:
        """Of all scores that are out: `done` will not be called."""

    def encode(self, text: str) -> list[int]: ...

    def turn(self, text: str) -> list[int]:
        """Ids that end the model's turn, say this as the user, and open its next one. Raises InvalidRequest."""

    def verify(self, text: str, answer: str | None, done: Callable[[Verdict], None]) -> None:
        """Asks the job's verifier about a candidate. Raises NoVerifier."""

    def decode(self, ids: Sequence[int]) -> str: ...
