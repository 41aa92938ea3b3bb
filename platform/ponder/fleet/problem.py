"""The planning problem of one model, as `plan` solves it, and its solution."""

from __future__ import annotations

from dataclasses import dataclass

from ponder.errors import InvalidInput

LOADING_S = 120.0
"""The time that loading is expected to take as long as no worker of the kind has loaded."""


@dataclass(frozen=True, slots=True)
class Load:
    """Unsettled work of a model that is due at the same time, in tokens of prompts and answers."""

    lane: str
    due_in_s: float
    tokens: int


@dataclass(frozen=True, slots=True)
class Offer:
    """A machine that the model can run on. Unless it `may_start` there, only the workers that run there count."""

    machine: str
    market: str
    nanodollars_per_hour: int
    tokens_per_s: float
    loading_s: float
    interruptions_per_hour: float
    may_start: bool = True


@dataclass(frozen=True, slots=True)
class Running:
    """The model's live workers on one kind of machine; those that are loading will be ready in `ready_in_s`."""

    machine: str
    market: str
    num_workers: int
    num_loading: int = 0
    ready_in_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Bounds:
    """Limits on the workers of a model. Those on workers and dollars go before the minimum. Raises InvalidInput."""

    min_workers: int = 0
    max_workers: int | None = None
    max_nanodollars_per_hour: int | None = None

    def __post_init__(self) -> None:
        if self.min_workers < 0:
            raise InvalidInput("the fewest workers must be zero or more", param="min")
        if self.max_workers is not None and self.max_workers < self.min_workers:
            raise InvalidInput(
                f"the most workers, {self.max_workers}, must not be below the fewest, {self.min_workers}", param="max"
            )
        if self.max_nanodollars_per_hour is not None and self.max_nanodollars_per_hour < 0:
            raise InvalidInput("the most dollars per hour must be zero or more", param="max_dollars_per_hour")


@dataclass(frozen=True, slots=True)
class Situation:
    """The work, the offers and the workers of one model.

    occupancy: the share of keys and values in use for a while, or None if unknown. interactive_tokens_per_s: the median
    of the interactive load, in tokens of the average of all work.
    """

    model: str
    fingerprint: str | None
    loads: tuple[Load, ...]
    offers: tuple[Offer, ...]
    running: tuple[Running, ...]
    occupancy: float | None
    interactive_tokens_per_s: float


@dataclass(frozen=True, slots=True)
class Wanted:
    """The workers that are wanted of one kind of machine, those that run included."""

    machine: str
    market: str
    num_workers: int
    reason: str


@dataclass(frozen=True, slots=True)
class Alternative:
    """A fleet, what it costs until the work is done, and the tokens that it finishes after they are due.

    finished_in_s: None if never.
    """

    name: str
    workers: tuple[Wanted, ...]
    nanodollars: int
    finished_in_s: float | None
    late_tokens: int


@dataclass(frozen=True, slots=True)
class Plan:
    """The wanted workers, what led to them, and the alternatives: nothing, spot only, on-demand only, mixed."""

    wanted: tuple[Wanted, ...]
    reasons: tuple[str, ...]
    alternatives: tuple[Alternative, ...]

    @property
    def num_workers(self) -> int:
        return sum(wanted.num_workers for wanted in self.wanted)

    @property
    def late_tokens(self) -> int:
        return self.alternatives[-1].late_tokens
