"""One job of a cell as it was measured."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

from ponder.bench.problem_set import problem_of
from ponder.wire import Json

_NUMBER = re.compile(r"\d+(?:\.\d+)?")


@dataclass(frozen=True, slots=True)
class Candidate:
    """An answer that a search chose from. `score` is the reward model's, if there is one."""

    answer: str | None
    score: float | None


@dataclass(frozen=True, slots=True)
class JobRecord:
    """A settled job. Times are Postgres's, in Unix seconds; None where there was no such token.

    A job is submitted with its batch. It runs from its first token to the end of its search, and is settled with the
    worker's next tick.
    """

    problem: str
    seed: int
    level: str | None
    verdict: str | None
    answer: str | None
    submitted_at: float
    first_token_at: float | None
    first_visible_token_at: float | None
    ended_at: float | None
    settled_at: float
    prompt_tokens: int
    completion_tokens: int
    thinking_tokens: int
    direct_nanodollars: int
    candidates: Sequence[Candidate]
    judged: bool = False
    """Whether its verdict is a model's."""
    checked: str | None = None
    """The verdict of comparing with the reference, of an answer that a model judged."""

    @classmethod
    def of(cls, measured: Json) -> Self:
        """Reads an object of /v1/measurements."""
        problem, seed = problem_of(measured["custom_id"])
        return cls(
            problem=problem,
            seed=seed,
            candidates=[Candidate(one["answer"], one["score"]) for one in measured["candidates"]],
            **{name: measured[name] for name in cls.__slots__ if name in measured and name != "candidates"},
        )

    @property
    def has_passed(self) -> bool:
        return self.verdict == "passed"

    @property
    def is_compared(self) -> bool:
        """Whether a judge and the reference have both called its answer right or wrong."""
        return {self.verdict, self.checked} <= {"passed", "failed"}

    @property
    def difficulty(self) -> float | None:
        """The first number in its level: 3 for `Level 3`."""
        found = _NUMBER.search(self.level or "")
        return float(found[0]) if found else None

    @property
    def done_at(self) -> float:
        """When its search ended, or at the latest when it was settled."""
        return self.settled_at if self.ended_at is None else self.ended_at

    @property
    def end_to_end_s(self) -> float:
        return self.settled_at - self.submitted_at

    @property
    def first_token_s(self) -> float | None:
        return None if self.first_token_at is None else self.first_token_at - self.submitted_at

    @property
    def first_visible_token_s(self) -> float | None:
        return None if self.first_visible_token_at is None else self.first_visible_token_at - self.submitted_at

    @property
    def running_s(self) -> float | None:
        if self.first_token_at is None or self.ended_at is None:
            return None
        return self.ended_at - self.first_token_at

    @property
    def token_s(self) -> float | None:
        """Seconds for an output token after the first one."""
        if self.running_s is None or self.completion_tokens < 2:
            return None
        return self.running_s / (self.completion_tokens - 1)
