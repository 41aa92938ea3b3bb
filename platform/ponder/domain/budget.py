"""The budgets of jobs and batches."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import Field

from ponder.domain.money import NANODOLLARS
from ponder.domain.strategy import Spec

ReasoningEffort = Literal["none", "minimal", "low", "medium", "high", "xhigh", "max"]

TOKENS_BY_EFFORT: dict[str, int] = {
    "minimal": 1_024, "low": 4_096, "medium": 16_384, "high": 65_536, "xhigh": 262_144
}  # fmt: skip
"""OpenAI's `reasoning_effort` as the thinking tokens of a sample, or of a model that does not think, as the tokens of
the job. `none` and `max` set no limit; `none` tells the chat template that the model shall not think."""


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


class BatchBudget(Spec):
    """Limits of a whole batch, over all attempts of its jobs. `tokens` is a hard wall on the generated tokens. Direct
    cost can exceed `dollars` by one tick's work of each worker at most.
    """

    dollars: float | None = Field(default=None, gt=0, le=9e9, allow_inf_nan=False)
    tokens: int | None = Field(default=None, ge=1, le=10**15)

    @property
    def limit_nanodollars(self) -> int | None:
        return None if self.dollars is None else max(1, round(self.dollars * NANODOLLARS))


@dataclass(frozen=True, slots=True)
class Spending:
    """The spending of a batch. `settled_nanodollars` is the direct cost of its `num_settled` settled jobs."""

    tokens: int = 0
    nanodollars: int = 0
    num_settled: int = 0
    settled_nanodollars: int = 0


_FIRST_SHARE = 8
_MOST_FIRST_JOBS = 64


@dataclass(frozen=True, slots=True)
class Allowance:
    """The limits of a batch and what is left of them. None is no limit. `reserved_…` is kept for jobs that run."""

    num_lines: int
    is_paused: bool
    limit_tokens: int | None
    limit_nanodollars: int | None
    spent: Spending
    reserved_tokens: int
    reserved_nanodollars: int
    num_running: int
    num_unreserved: int
    """Jobs that were claimed before the batch had a limit of tokens."""

    @property
    def room_tokens(self) -> int | None:
        if self.limit_tokens is None:
            return None
        return self.limit_tokens - self.spent.tokens - self.reserved_tokens

    @property
    def room_nanodollars(self) -> int | None:
        if self.limit_nanodollars is None:
            return None
        return self.limit_nanodollars - self.spent.nanodollars - self.reserved_nanodollars

    @property
    def job_nanodollars(self) -> int:
        """The reserve for a job that starts: the mean direct cost of the settled ones.

        Before the first is settled, the rest of the budget is divided among the jobs that may run by then.
        """
        if self.spent.num_settled:
            return max(1, -(-self.spent.settled_nanodollars // self.spent.num_settled))
        return max(1, ((self.limit_nanodollars or 0) - self.spent.nanodollars) // self._num_first)

    @property
    def num_more(self) -> int | None:
        """How many more jobs may start, whatever they cost. None: any number.

        Before the cost of a job is known, an eighth of the jobs run, and at most 64: however far the guess is off,
        some end before the budget does.
        """
        if self.limit_nanodollars is None or self.spent.num_settled:
            return None
        return max(0, self._num_first - self.num_running)

    @property
    def _num_first(self) -> int:
        return min(max(self.num_lines // _FIRST_SHARE, 1), _MOST_FIRST_JOBS)

    def admits(self, tokens: int | None) -> bool:
        """Returns whether another job may start that may generate so many tokens (None: unknown)."""
        if self.must_stop or self.num_more == 0:
            return False
        fits = self.room_tokens is None or (1 if tokens is None else tokens) <= self.room_tokens
        return fits and (self.room_nanodollars is None or self.job_nanodollars <= self.room_nanodollars)

    @property
    def must_stop(self) -> bool:
        """Whether running jobs are handed back. Reserved tokens exceed a limit only if it was lowered."""
        if self.is_paused:
            return True
        if self.limit_nanodollars is not None and self.spent.nanodollars >= self.limit_nanodollars:
            return True
        return self.room_tokens is not None and (self.num_unreserved > 0 or self.room_tokens < 0)


def most_tokens(request: Mapping[str, Any], context_length: int) -> int:
    """Returns the most tokens a job generates: its own limit, or what its strategy can reach within the context."""
    budget, effort = request.get("budget") or {}, request.get("effort") or {}
    # For a model that does not think, the effort takes the place of the budget.
    named = [limit for limit in (budget.get("tokens"), effort.get("tokens")) if limit is not None]
    if budget.get("tokens") is not None:
        return int(max(named))
    limits = (request["sampling"].get("max_tokens"), budget.get("tokens_per_sample"), context_length)
    strategy = request["strategy"]
    num_samples = max(int(strategy.get("n") or 1), int(request.get("n") or 1))
    num_steps = int(strategy["width"]) if strategy["name"] == "mcts" else 1
    num_rounds = int(request.get("max_rounds") or 1)
    reached = min(limit for limit in limits if limit is not None) * num_samples * num_steps * num_rounds
    return int(max([reached, *named]))
