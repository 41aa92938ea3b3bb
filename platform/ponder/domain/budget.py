"""The budgets of jobs, batches, keys and tenants."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field

from ponder.domain.batch.stages import solvers, stage_request
from ponder.domain.money import NANODOLLARS
from ponder.domain.strategy import Judging, Spec

Measure = Literal["tokens", "dollars"]
Period = Literal["day", "month"]
PERIODS: tuple[Period, ...] = ("day", "month")

ReasoningEffort = Literal["none", "minimal", "low", "medium", "high", "xhigh", "max"]

TOKENS_BY_EFFORT: dict[str, int] = {
    "minimal": 1_024, "low": 4_096, "medium": 16_384, "high": 65_536, "xhigh": 262_144
}  # fmt: skip
"""OpenAI's `reasoning_effort` as the thinking tokens of a sample, or of a model that does not think, as the tokens of
the job. `none` and `max` set no limit; `none` tells the chat template that the model shall not think."""


_JUDGING = Judging()


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


_Dollars = Annotated[float, Field(gt=0, le=9e9, allow_inf_nan=False)]
_Tokens = Annotated[int, Field(ge=1, le=10**15)]


class BatchBudget(Spec):
    """Limits of a whole batch, over all attempts of its jobs. `tokens` is a hard wall on the generated tokens. Direct
    cost can exceed `dollars` by one tick's work of each worker at most.
    """

    dollars: _Dollars | None = None
    tokens: _Tokens | None = None

    @property
    def limit_nanodollars(self) -> int | None:
        return None if self.dollars is None else max(1, round(self.dollars * NANODOLLARS))

    def replacing(self, tokens: int | None, nanodollars: int | None) -> tuple[int | None, int | None]:
        """Returns the limits of tokens and nano-dollars in place of those given. What was not set stays."""
        return (
            self.tokens if "tokens" in self.model_fields_set else tokens,
            self.limit_nanodollars if "dollars" in self.model_fields_set else nanodollars,
        )


class RenewingBudget(Spec):
    """Limits of a key or tenant, over all its batches. They begin anew each day or month in UTC.

    They hold as those of a batch do.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    dollars_per_day: _Dollars | None = None
    tokens_per_day: _Tokens | None = None
    dollars_per_month: _Dollars | None = None
    tokens_per_month: _Tokens | None = None

    def of(self, period: Period) -> BatchBudget:
        """Returns the limits of a period. Those that were not set stay so."""
        limits = {"dollars": f"dollars_per_{period}", "tokens": f"tokens_per_{period}"}
        given = {name: getattr(self, field) for name, field in limits.items() if field in self.model_fields_set}
        return BatchBudget(**given)


@dataclass(frozen=True, slots=True)
class Spending:
    """The spending of a batch, or of a key or tenant in a day or month.

    `settled_nanodollars` is the direct cost of its `num_settled` settled jobs.
    """

    tokens: int = 0
    nanodollars: int = 0
    num_settled: int = 0
    settled_nanodollars: int = 0

    @property
    def mean_nanodollars(self) -> int | None:
        """The mean direct cost of the settled jobs, or None before the first is settled."""
        return max(1, -(-self.settled_nanodollars // self.num_settled)) if self.num_settled else None


class BudgetName(StrEnum):
    """The budgets that a batch draws on. Those of a key and of a tenant begin anew each day or month in UTC."""

    BATCH = "batch"
    KEY_DAY = "key_day"
    KEY_MONTH = "key_month"
    TENANT_DAY = "tenant_day"
    TENANT_MONTH = "tenant_month"

    @property
    def words(self) -> str:
        """The name for people: "the key's budget of the day"."""
        owner, _, period = self.value.partition("_")
        return f"the {owner}'s budget of the {period}" if period else f"the {owner}'s budget"


_FIRST_SHARE = 8
_MOST_FIRST_JOBS = 64


@dataclass(frozen=True, slots=True)
class Limit:
    """A budget that a batch draws on. None is no limit. `reserved_…` is kept for jobs that run, of all its batches."""

    budget: BudgetName
    owner_id: str
    """The batch, key or tenant."""
    tokens: int | None
    nanodollars: int | None
    spent: Spending = Spending()
    reserved_tokens: int = 0
    reserved_nanodollars: int = 0
    num_unreserved: int = 0
    """Running jobs that were claimed before there was a limit of tokens."""
    renews_at: datetime | None = None

    @property
    def room_tokens(self) -> int | None:
        return None if self.tokens is None else self.tokens - self.spent.tokens - self.reserved_tokens

    @property
    def room_nanodollars(self) -> int | None:
        if self.nanodollars is None:
            return None
        return self.nanodollars - self.spent.nanodollars - self.reserved_nanodollars

    @property
    def must_stop(self) -> bool:
        """Whether running jobs are handed back. Reserved tokens exceed a limit only if it was lowered."""
        if self.nanodollars is not None and self.spent.nanodollars >= self.nanodollars:
            return True
        return self.room_tokens is not None and (self.num_unreserved > 0 or self.room_tokens < 0)

    @property
    def shares(self) -> dict[Measure, float]:
        """The share of each limit that is spent."""
        limits: dict[Measure, tuple[int, int | None]] = {
            "tokens": (self.spent.tokens, self.tokens),
            "dollars": (self.spent.nanodollars, self.nanodollars),
        }
        return {measure: spent / limit for measure, (spent, limit) in limits.items() if limit is not None}

    @property
    def is_settled(self) -> bool:
        """Whether nothing is reserved, so that nothing can be returned."""
        return not (self.reserved_tokens or self.reserved_nanodollars or self.num_unreserved)

    def first_nanodollars(self, num_first: int) -> int:
        """Returns the reserve for a job of a batch of which none is settled: the mean of other batches.

        Without that, what is left of the budget is divided among the jobs that may run by then, `num_first` of a batch.
        """
        known = self.spent.mean_nanodollars
        if known is not None:
            return known
        num_jobs = num_first if self.budget is BudgetName.BATCH else _MOST_FIRST_JOBS
        return max(1, ((self.nanodollars or 0) - self.spent.nanodollars) // num_jobs)

    def admits(self, tokens: int, nanodollars: int) -> bool:
        """Returns whether another job fits that may generate so many tokens and is expected to cost so much."""
        if self.must_stop or (self.room_tokens is not None and tokens > self.room_tokens):
            return False
        return self.room_nanodollars is None or nanodollars <= self.room_nanodollars


@dataclass(frozen=True, slots=True)
class Allowance:
    """The budgets that a batch draws on: its own if it has one, and those of its key and tenant."""

    num_lines: int
    is_paused: bool
    num_running: int
    spent: Spending
    limits: tuple[Limit, ...]

    @property
    def own(self) -> Limit | None:
        """The budget of the batch itself."""
        return next((limit for limit in self.limits if limit.budget is BudgetName.BATCH), None)

    @property
    def has_tokens(self) -> bool:
        """Whether any budget limits tokens."""
        return any(limit.tokens is not None for limit in self.limits)

    @property
    def has_dollars(self) -> bool:
        """Whether any budget limits dollars."""
        return any(limit.nanodollars is not None for limit in self.limits)

    @property
    def room_tokens(self) -> int | None:
        """The tokens that all budgets have left."""
        return min((limit.room_tokens for limit in self.limits if limit.room_tokens is not None), default=None)

    @property
    def room_nanodollars(self) -> int | None:
        rooms = (limit.room_nanodollars for limit in self.limits if limit.room_nanodollars is not None)
        return min(rooms, default=None)

    @property
    def job_nanodollars(self) -> int:
        """The reserve for a job that starts: the mean direct cost of the batch's settled ones."""
        known = self.spent.mean_nanodollars
        if known is not None:
            return known
        guesses = (limit.first_nanodollars(self._num_first) for limit in self.limits if limit.nanodollars is not None)
        return min(guesses, default=1)

    @property
    def num_more(self) -> int | None:
        """How many more jobs may start, whatever they cost. None: any number.

        Before the cost of a job is known, an eighth of the jobs run, and at most 64: however far the guess is off,
        some end before the budget does.
        """
        if not self.has_dollars or self.spent.num_settled:
            return None
        return max(0, self._num_first - self.num_running)

    @property
    def _num_first(self) -> int:
        return min(max(self.num_lines // _FIRST_SHARE, 1), _MOST_FIRST_JOBS)

    def refusing(self, tokens: int | None) -> tuple[Limit, ...]:
        """Returns the budgets without room for another job that may generate so many tokens (None: unknown)."""
        least = 1 if tokens is None else tokens
        return tuple(limit for limit in self.limits if not limit.admits(least, self.job_nanodollars))

    def admits(self, tokens: int | None) -> bool:
        """Returns whether another job may start that may generate so many tokens (None: unknown)."""
        return not self.is_paused and self.num_more != 0 and not self.refusing(tokens)

    @property
    def admits_none(self) -> bool:
        """Whether no job may start, however few tokens it may generate."""
        return not self.admits(0)

    def held_up_by(self, tokens: int | None) -> tuple[Limit, ...]:
        """Returns the budgets without room for another job, if none of the batch runs that may return some of it."""
        return () if self.num_running else self.refusing(tokens)

    def exhausted(self, tokens: int | None) -> Limit | None:
        """Returns the budget that keeps the batch from going on, once none of its jobs runs.

        While a budget has something reserved, it is not exhausted. The one that renews last is returned.
        """
        spent = [limit for limit in self.held_up_by(tokens) if limit.is_settled]
        return last_to_renew(spent) if spent and not self.is_paused else None

    @property
    def must_stop(self) -> bool:
        """Whether running jobs are handed back."""
        return self.is_paused or any(limit.must_stop for limit in self.limits)


def last_to_renew(limits: Sequence[Limit]) -> Limit:
    """Returns the budget that keeps a batch waiting longest. One of a batch never renews."""
    return max(limits, key=lambda limit: (limit.renews_at is None, limit.renews_at or datetime.max))


def most_tokens(request: Mapping[str, Any], context_length: int) -> int:
    """Returns the most tokens a job generates: its own limit, or what its strategy can reach within the context.

    Those of a cascade are the sum of its stages', each within the context of its own model.
    """
    budget, effort = request.get("budget") or {}, request.get("effort") or {}
    # For a model that does not think, the effort takes the place of the budget.
    named = [limit for limit in (budget.get("tokens"), effort.get("tokens")) if limit is not None]
    if budget.get("tokens") is not None:
        return int(max(named))
    if stages := solvers(request):
        parts = (most_tokens(stage_request(request, number), pin.context_length) for number, pin in enumerate(stages))
        return sum(parts) + sum(map(most_accepting, request["strategy"].get("stages", ())))
    limits = (request["sampling"].get("max_tokens"), budget.get("tokens_per_sample"), context_length)
    strategy = request["strategy"]
    num_steps = int(strategy["width"]) if strategy["name"] == "mcts" else 1
    num_rounds = int(request.get("max_rounds") or 1)
    reached = min(limit for limit in limits if limit is not None) * _num_samples(request) * num_steps * num_rounds
    return int(max([reached + most_judging(request), *named]))


def most_judging(request: Mapping[str, Any]) -> int:
    """Returns the most tokens of the judges that choose among a job's samples and count its success."""
    strategy, verifier = request.get("strategy") or {}, request.get("verifier") or {}
    # Each candidate but one loses once, at most. The verdict on the answer comes after all rounds.
    is_contest = strategy.get("select") in ("tournament", "genselect")
    num_matches = (_num_samples(request) - 1) * int(request.get("max_rounds") or 1) if is_contest else 0
    counting = _of_replies(verifier) if verifier.get("name") == "judge" else 0
    return num_matches * _of_replies(strategy.get("judge") or {}) + counting


def most_accepting(stage: Mapping[str, Any]) -> int:
    """Returns the most tokens of the judge that accepts the answer of a stage."""
    rule = stage.get("accept") or {}
    return _of_replies(rule) if rule.get("by") == "judge" else 0


def _num_samples(request: Mapping[str, Any]) -> int:
    return max(int((request.get("strategy") or {}).get("n") or 1), int(request.get("n") or 1))


def _of_replies(judging: Mapping[str, Any]) -> int:
    """Returns the most tokens of a judge's replies to one question."""
    return int(judging.get("n", _JUDGING.n)) * int(judging.get("max_tokens", _JUDGING.max_tokens))
