"""The cells of a suite: every combination of what it varies."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product

from ponder.bench.suite import AtOnce, DataSet, Gamma, Part, Poisson, Suite, Trace, strategy_label
from ponder.domain.strategy import AnyStrategy
from ponder.wire import Json

_UNSET = ("", "", "", "no budget", "no limit", AtOnce().label)
"""The words for each part of a key that sets nothing."""


class CellKey(Part):
    """The settings that tell a cell from the others of its run. `budget_tokens` and `concurrency` None mean no limit.

    `worker` is the setting of the workers, for a suite that starts its own.
    """

    data: str
    model: str
    worker: str | None
    strategy: str
    budget_tokens: int | None
    concurrency: int | None
    arrivals: str

    @property
    def setting(self) -> str:
        """The model, or the workers' setting where the suite varies that."""
        return self.worker or self.model

    @property
    def parts(self) -> Sequence[str]:
        """The text of each setting, empty for one that sets nothing."""
        return (
            self.data,
            self.setting,
            self.strategy,
            "" if self.budget_tokens is None else f"{self.budget_tokens:,} tokens",
            "" if self.concurrency is None else f"{self.concurrency} in flight",
            "" if self.arrivals == AtOnce().label else self.arrivals,
        )

    @property
    def label(self) -> str:
        return ", ".join(filter(None, self.parts))

    def is_comparable(self, other: CellKey) -> bool:
        """Whether they differ in nothing but model and workers."""
        same = {"model": other.model, "worker": other.worker}
        return self.model_copy(update=same) == other


def short_labels(keys: Sequence[CellKey]) -> dict[CellKey, str]:
    """Returns a label of each cell that leaves out what all of them have in common."""
    columns = list(zip(*(key.parts for key in keys), strict=True))
    varies = [len(set(column)) > 1 for column in columns]

    def short(key: CellKey) -> str:
        parts = [part or unset for part, unset in zip(key.parts, _UNSET, strict=True)]
        return ", ".join(part for part, is_own in zip(parts, varies, strict=True) if is_own) or key.label

    return {key: short(key) for key in keys}


@dataclass(frozen=True, slots=True)
class Cell:
    """One combination, which is run by itself."""

    data: DataSet
    model: str
    worker: str | None
    strategy: AnyStrategy
    budget_tokens: int | None
    concurrency: int | None
    arrivals: AtOnce | Poisson | Gamma | Trace

    @property
    def key(self) -> CellKey:
        return CellKey(
            data=self.data.name,
            model=self.model,
            worker=self.worker,
            strategy=strategy_label(self.strategy),
            budget_tokens=self.budget_tokens,
            concurrency=self.concurrency,
            arrivals=self.arrivals.label,
        )

    @property
    def options(self) -> Json:
        """The `ponder` object of its batches."""
        options: Json = {"strategy": self.strategy.model_dump(mode="json")}
        if self.data.verifier is not None:
            options["verifier"] = self.data.verifier.model_dump(mode="json")
        if self.budget_tokens is not None:
            options["budget"] = {"tokens": self.budget_tokens}
        return options


def cells(suite: Suite, model: str, worker: str | None) -> Iterator[Cell]:
    """Yields the cells of one model or worker, data sets first, then strategies, budgets and load."""
    for data, strategy, budget, concurrency, arrivals in product(
        suite.data, suite.strategies, suite.budgets, suite.concurrency, suite.arrivals
    ):
        yield Cell(data, model, worker, strategy, budget or None, concurrency or None, arrivals)
