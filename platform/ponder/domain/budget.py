"""The budget of a job."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from ponder.domain.strategy import Spec

ReasoningEffort = Literal["minimal", "low", "medium", "high"]

TOKENS_BY_EFFORT: dict[str, int] = {"minimal": 1_024, "low": 4_096, "medium": 16_384, "high": 65_536}
"""OpenAI's `reasoning_effort` as a token budget of the job."""


class Budget(Spec):
    """Limits of a job. `tokens` is a hard wall on the generated tokens of the whole job. A sample never exceeds
    `tokens_per_sample`, and its thinking is closed at `thinking_tokens`. Thinking counts toward all three.

    Dollars and the deadline can be exceeded by one tick's work at most.
    """

    tokens: int | None = Field(default=None, ge=1, le=100_000_000)
    tokens_per_sample: int | None = Field(default=None, ge=1, le=1_000_000)
    thinking_tokens: int | None = Field(default=None, ge=1, le=1_000_000)
    dollars: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    deadline_s: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    """Seconds from submission."""
