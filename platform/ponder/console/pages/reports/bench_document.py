"""The part of a run of `ponder bench` that pages show, read from its document.

The API keeps whatever a client sent, and the bench is above the console, so that only fields that pages need are read,
and a document of another form is refused.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ponder.domain.storable import JsonObject

_Unix = Annotated[float, Field(ge=0, le=1e11)]
"""A moment that a calendar has."""


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore", allow_inf_nan=False)


class Estimate(_Part):
    """A figure, with the ends of its 95 % interval where it has one."""

    value: float | None = None
    low: float | None = None
    high: float | None = None


class Spread(_Part):
    p50: float | None = None
    p95: float | None = None
    p99: float | None = None


class CellKey(_Part):
    """The settings that tell a cell from the others of its run."""

    data: str
    model: str
    strategy: str
    arrivals: str = ""
    worker: str | None = None
    budget_tokens: int | None = None
    concurrency: int | None = None

    @property
    def task(self) -> tuple[object, ...]:
        """Everything but the model and the workers, which are what runs are compared for."""
        return self.data, self.strategy, self.budget_tokens, self.concurrency, self.arrivals

    @property
    def parts(self) -> Sequence[str]:
        return (
            self.data,
            self.worker or self.model,
            self.strategy,
            "no budget" if self.budget_tokens is None else f"{self.budget_tokens:,} tokens",
            "no limit" if self.concurrency is None else f"{self.concurrency} in flight",
            self.arrivals,
        )


class LevelAccuracy(_Part):
    level: str
    pass_1: Estimate


class Accuracy(_Part):
    num_problems: int
    num_jobs: int
    pass_1: Estimate
    by_level: tuple[LevelAccuracy, ...] = ()


class Service(_Part):
    wall_s: float | None = None
    jobs_per_s: float | None = None
    output_tokens_per_s: float | None = None
    kv_p99: float | None = None
    cache_hit_rate: float | None = None


class UserTimes(_Part):
    first_token_s: Spread = Spread()
    first_visible_token_s: Spread = Spread()
    end_to_end_s: Spread = Spread()
    output_tokens: Spread = Spread()
    stragglers: float | None = None


class Bill(_Part):
    direct_per_task: float | None = None
    direct_per_success: Estimate = Estimate()
    loaded_per_success: float | None = None


class Point(_Part):
    at_s: float
    kv_usage: float
    num_running: float
    num_waiting: float
    tokens_per_s: float


class Cell(_Part):
    """The figures of one combination of settings."""

    key: CellKey
    accuracy: Accuracy
    service: Service = Service()
    user: UserTimes = UserTimes()
    bill: Bill = Bill()
    batch_ids: tuple[str, ...] = ()
    points: tuple[Point, ...] = ()


class Measure(_Part):
    name: str
    a: float
    b: float
    difference: Estimate
    meaning: str


class Difference(_Part):
    """How a cell differs from the one of the first setting, over the problems that both ran."""

    a: CellKey
    b: CellKey
    num_problems: int
    measures: tuple[Measure, ...] = ()


class Suite(_Part):
    name: str
    description: str = ""


class BenchDocument(_Part):
    suite: Suite
    ponder: str = ""
    began_at: _Unix
    ended_at: _Unix
    cells: tuple[Cell, ...]
    differences: tuple[Difference, ...] = ()
    skipped: dict[str, str] = {}

    @property
    def labels(self) -> Sequence[str]:
        """The names of its cells, without what all of them have in common."""
        parts = [cell.key.parts for cell in self.cells]
        varies = [len(set(column)) > 1 for column in zip(*parts, strict=True)]
        return [
            ", ".join(part for part, is_own in zip(own, varies, strict=True) if is_own) or f"{own[1]}, {own[2]}"
            for own in parts
        ]


def read_document(document: JsonObject) -> BenchDocument | None:
    """Returns what pages show, or None for a document of another form."""
    try:
        return BenchDocument.model_validate(document)
    except ValidationError:
        return None
