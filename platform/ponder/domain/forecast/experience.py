"""All that settled jobs tell about those to come: named sums by cell, and what they mean."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import chain

from ponder.domain.forecast.histogram import Histogram, bin_of
from ponder.domain.forecast.lengths import CellKey, Lengths
from ponder.domain.forecast.ratio import Estimate, Ratio

Sums = Mapping[str, float]

_TOKENS_A_BYTE = Estimate(1 / 3.5, 0.15, 0.05)
_REWARD_A_TOKEN = Estimate(1.2, 0.5, 0.2)
"""A reward model reads what was generated, and the prompt with each sample."""
_NOTHING = Estimate(0.0, 0.0, 0.0)
_BETWEEN_CELLS = 0.2**2
"""The relative variance of a ratio between the cells of a model."""
_BETWEEN_LOADS = 0.15**2
"""The relative variance of engine time between batches: a fuller step costs each of its jobs less."""
_EARLIER_JOBS = 20.0
"""The weight of a tenant's earlier jobs beside those of the batch itself."""


@dataclass(frozen=True, slots=True)
class Observation:
    """A completed job. `tokens` are those it generated, per sample of its strategy.

    is_censored: it was cut off, and would have generated more. prompt_bytes: None if the prompt was token ids. machine
    and engine_s: where it ran and the engine's time it is charged with; None if unknown, or if it ran on several.
    """

    tokens: float
    is_censored: bool
    generated_tokens: int
    prompt_tokens: int
    reward_tokens: int
    prompt_bytes: int | None
    machine: str | None
    engine_s: float

    def sums(self) -> dict[str, float]:
        """Returns what it adds to its cell's sums."""
        place = bin_of(self.tokens)
        sums = {f"cut.{place}": 1.0} if self.is_censored else {f"len.{place}": 1.0, "tokens": self.tokens}
        sums |= Ratio.lesson("reward", self.generated_tokens, self.reward_tokens)
        if self.prompt_bytes:
            sums |= Ratio.lesson("prompt", self.prompt_bytes, self.prompt_tokens)
        if self.machine is not None:
            sums |= Ratio.lesson(f"time.{self.machine}", self.prompt_tokens + self.generated_tokens, self.engine_s)
        return sums


class Experience:
    """The knowledge that the settled jobs of a tenant give, by cell."""

    def __init__(self, sums: Mapping[CellKey, Sums]) -> None:
        self._sums = sums
        self._pools: dict[tuple[str, str, str | None], Ratio] = {}

    @cached_property
    def lengths(self) -> Lengths:
        return Lengths({key: _histogram(sums) for key, sums in self._sums.items()})

    def prompt(self, key: CellKey) -> Estimate:
        """Returns the tokens of a prompt's byte."""
        of_model = self._pooled("prompt", key[0]).estimate(_TOKENS_A_BYTE)
        return self._own("prompt", key).estimate(of_model.widened(_BETWEEN_CELLS))

    def reward(self, key: CellKey, *, is_scored: bool) -> Estimate:
        """Returns the tokens that the reward model reads for each generated one."""
        if not is_scored:
            return _NOTHING
        of_strategy = self._pooled("reward", key[0], key[1].split(" ")[0]).estimate(_REWARD_A_TOKEN)
        return self._own("reward", key).estimate(of_strategy.widened(_BETWEEN_CELLS))

    def seconds(self, key: CellKey, machine: str) -> Estimate | None:
        """Returns the engine's seconds for a token of prompt or answer, or None if the model never ran there."""
        of_model = self._pooled(f"time.{machine}", key[0])
        if of_model.n == 0 or of_model.y <= 0:
            return None
        general = of_model.estimate(Estimate(of_model.y / of_model.x, 1.0, 0.1))
        own = self._own(f"time.{machine}", key).estimate(general.widened(_BETWEEN_CELLS))
        return own.widened(_BETWEEN_LOADS)

    def machines(self, fingerprint: str) -> list[str]:
        """Returns the machines on which a model's jobs were timed, the one with most jobs first."""
        named = {name.removeprefix("time.").removesuffix(".n") for sums in self._of(fingerprint) for name in sums
                 if name.startswith("time.") and name.endswith(".n")}  # fmt: skip
        return sorted(named, key=lambda name: (-self._pooled(f"time.{name}", fingerprint).n, name))

    def _of(self, fingerprint: str) -> list[Sums]:
        return [sums for key, sums in self._sums.items() if key[0] == fingerprint]

    def _own(self, name: str, key: CellKey) -> Ratio:
        return Ratio.read(self._sums.get(key, {}), name)

    def _pooled(self, name: str, fingerprint: str, strategy: str | None = None) -> Ratio:
        asked = (name, fingerprint, strategy)
        if asked not in self._pools:
            pooled = Ratio()
            for key, sums in self._sums.items():
                if key[0] == fingerprint and strategy in (None, key[1].split(" ")[0]):
                    pooled += Ratio.read(sums, name)
            self._pools[asked] = pooled
        return self._pools[asked]


class BatchExperience(Experience):
    """The knowledge for the jobs of one batch that are left: its `own` settled jobs, and those of its tenant.

    Once a model has some of its own, all earlier ones together count as a few jobs, because another batch may have had
    quite different problems: a power prior (Ibrahim & Chen 2000). Sums are additive, so they are scaled. Engine time
    depends on the machine and its load rather than on the problems, so there they count in full. A pilot leaves workers
    less full than the batch will, so as long as only its `num_pilot` jobs have settled, the time on a machine is known
    from earlier jobs alone, if there are more of them.
    """

    def __init__(self, own: Mapping[CellKey, Sums], of_tenant: Mapping[CellKey, Sums], num_pilot: int = 0) -> None:
        """`of_tenant` includes the sums of the batch's own jobs."""
        self.num_settled = {key: _num_jobs(sums) for key, sums in own.items()}
        earlier = {key: _less(sums, own.get(key, {})) for key, sums in of_tenant.items()}
        if self.num_own <= num_pilot:
            own = _without_known_times(own, earlier)
        self.is_timed_by_pilot = 0 < self.num_own <= num_pilot and any(map(_is_time, chain(*own.values())))
        """Whether engine time is known from the jobs of a pilot."""
        has_own = {key[0] for key in own}
        weights = {
            fingerprint: min(1.0, _EARLIER_JOBS / max(_num_of_model(earlier, fingerprint), 1.0))
            for fingerprint in has_own
        }
        super().__init__(
            {
                key: _plus(own.get(key, {}), earlier.get(key, {}), weights.get(key[0], 1.0))
                for key in earlier.keys() | own.keys()
            }
        )

    @property
    def num_own(self) -> int:
        """The number of settled jobs of the batch itself."""
        return round(sum(self.num_settled.values()))


def _without_known_times(own: Mapping[CellKey, Sums], earlier: Mapping[CellKey, Sums]) -> Mapping[CellKey, Sums]:
    """Returns the sums without the times on those machines that more of the earlier jobs ran on."""
    counts = {name for sums in own.values() for name in sums if _is_time(name) and name.endswith(".n")}
    known = {name.removesuffix("n") for name in counts if _added(earlier, name) > _added(own, name)}
    return {
        key: {name: value for name, value in sums.items() if not name.startswith(tuple(known))}
        for key, sums in own.items()
    }


def _added(cells: Mapping[CellKey, Sums], name: str) -> float:
    return sum(float(sums.get(name, 0.0)) for sums in cells.values())


def _num_of_model(cells: Mapping[CellKey, Sums], fingerprint: str) -> float:
    return sum(_num_jobs(sums) for key, sums in cells.items() if key[0] == fingerprint)


def _num_jobs(sums: Sums) -> float:
    return sum(float(jobs) for name, jobs in sums.items() if name.startswith(("len.", "cut.")))


def _less(sums: Sums, part: Sums) -> Sums:
    """Returns the rest, never negative: the part may have been read a moment later than the whole."""
    return {name: max(0.0, float(value) - float(part.get(name, 0.0))) for name, value in sums.items()}


def _plus(own: Sums, earlier: Sums, weight: float) -> Sums:
    names = own.keys() | earlier.keys()
    return {
        name: float(own.get(name, 0.0)) + (1.0 if _is_time(name) else weight) * float(earlier.get(name, 0.0))
        for name in names
    }


def _is_time(name: str) -> bool:
    return name.startswith("time.")


def _histogram(sums: Sums) -> Histogram:
    histogram = Histogram(tokens=float(sums.get("tokens", 0.0)))
    for name, jobs in sums.items():
        kind, _, place = name.partition(".")
        if kind in ("len", "cut"):
            counts = histogram.seen if kind == "len" else histogram.censored
            counts[int(place)] = float(jobs)
    return histogram
