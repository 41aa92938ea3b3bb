"""The engine as a search needs it. The tests implement it with an engine that computes nothing."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from ponder_worker.search.thought import Thought


class Stream(Protocol):
    """A read-only view of one token stream.

    tokens: the prompt and all generated ids so far. logprobs: one for each id that was generated in this stream.
    top_logprobs: the likeliest (id, log-probability) at each of their places, best first; empty if nobody asked.
    """

    @property
    def tokens(self) -> Sequence[int]: ...
    @property
    def logprobs(self) -> Sequence[float]: ...
    @property
    def top_logprobs(self) -> Sequence[Sequence[tuple[int, float]]]: ...


@dataclass(frozen=True, slots=True)
class StreamEnd:
    """How a stream ended: "stop" (an end token or a stop string), "separator" or "length".

    stop_chars: characters at the end of the turn's text, from the stop string on, that are not part of the answer. They
    may be more than the stream's own, because a stop string can begin before the stream does.
    """

    reason: str
    stop_chars: int = 0


@dataclass(frozen=True, slots=True)
class StreamRequest:
    """A request to continue `tokens`. Tokens after `start` were generated before, and `max_tokens` counts from `start`.

    turn_start: where the model's own turn begins; tokens between it and `start` belong to other nodes.
    num_former: tokens at the front that this attempt did not generate: the prompt, and what former attempts generated.
    prompt_length: how many of them are the prompt's. judges: whether it is a judge's reply, which is sampled by the
    model's defaults instead of the job's parameters. is_greedy: whether such a reply takes the likeliest tokens.
    """

    tokens: list[int]
    start: int
    turn_start: int
    max_tokens: int
    seed: int
    separator: str | None
    num_former: int
    prompt_length: int
    judges: bool = False
    is_greedy: bool = False


@dataclass(frozen=True, slots=True)
class ScoreRequest:
    """A request to score the last step of a path, given everything before it.

    ids_before includes the prompt. text_before holds generated text only, and steps_before is the same text by step.
    """

    ids_before: list[int]
    ids: list[int]
    text_before: str
    text: str
    steps_before: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class VerifierReply:
    """A verifier's answer.

    passed: None if it could not judge. feedback: what was wrong, or why it could not judge; may be empty.
    """

    passed: bool | None
    feedback: str = ""


class EnginePort(Protocol):
    """One job's access to the engines. A request takes effect in the next step; `done` is called after a later one."""

    @property
    def thought(self) -> Thought | None:
        """How the generator thinks; None for a model that answers at once."""

    @property
    def can_score(self) -> bool:
        """Whether there is a reward model."""

    @property
    def context_length(self) -> int:
        """The most tokens that the generator can read and write together."""

    @property
    def problem(self) -> str:
        """All that the job's conversation says, as plain text."""

    @property
    def begun(self) -> str:
        """The beginning of every answer, if the model is to continue it."""

    def generate(self, request: StreamRequest, done: Callable[[StreamEnd], None]) -> Stream: ...

    def speculate(self, request: StreamRequest, done: Callable[[StreamEnd], None]) -> Stream | None:
        """Begins a stream that may turn out not to be wanted, in room that is free; None if it will not pay."""

    def adopt(self, stream: Stream) -> None:
        """Turns a speculative stream into an ordinary one."""

    def cancel(self, stream: Stream) -> None:
        """Stops the stream. Its `done` is not called."""

    def score(self, request: ScoreRequest, done: Callable[[float], None]) -> None:
        """Scores the step alone, as the logarithm of a probability. Raises NoRewardModel."""

    def cancel_scores(self) -> None:
        """Cancels all scores that are pending. Their `done` is not called."""

    def encode(self, text: str) -> list[int]: ...

    async def question(self, text: str) -> list[int] | None:
        """Returns the ids of a prompt of its own that asks this, without reading any of the text as a special token.

        None if it is too long. Raises InvalidConversation.
        """

    def user_turn(self, text: str) -> list[int]:
        """Returns ids that end the model's turn, say this as the user, and open a new turn. Raises InvalidRequest."""

    def verify(self, text: str, answer: str | None, done: Callable[[VerifierReply], None]) -> None:
        """Asks the job's verifier about a candidate. Raises NoVerifier."""

    def decode(self, ids: Sequence[int]) -> str: ...
