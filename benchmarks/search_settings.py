"""The settings that benchmarks/search.py compares: strategies with their parameters, on one model or two."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from ponder.embedded.plan import LARGE_MODEL_NAME, MODEL_NAME

MANY, SEVERAL = 64, 16
ONE_SAMPLE = ("direct", "budget_forcing", "answer_probing")
STOPPING = ("self_consistency", "best_of_n")
ON_LARGE = ("direct", "self_consistency", "best_of_n", "adaptive")
"""The strategies that are also measured on the large model alone."""
CONTENDERS = (*ON_LARGE, "cascade")
"""The strategies whose cheap settings get all problems."""
CONFIDENCE = {"keep": 0.9, "window": 16, "num_warmup": 4}
"""For samples of some hundred tokens; the default window is longer than they are."""
RULES = ("beta", "window", "confidence")
WORTHS = (5.0, 30.0)
"""What else one more solved task may cost `adaptive`, besides its default, at the largest n below MANY."""
THRESHOLDS = (0.6, 0.8, 0.95)

Stage = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Setting:
    """One strategy with its parameters, which is a point on a curve.

    n: the most samples of any stage. early_stopping: one of RULES. tells_level: its lines tell the router their level.
    """

    curve: str
    strategy: str
    n: int
    spec: Mapping[str, Any] = field(hash=False)
    model: str = MODEL_NAME
    early_stopping: str | None = None
    threshold: float | None = None
    worth: float | None = None
    tells_level: bool = False

    @property
    def name(self) -> str:
        n = None if self.is_cascade else f"n={self.n}"
        worth = None if self.worth is None else f"worth={self.worth:g}"
        threshold = None if self.threshold is None else f"threshold={self.threshold:g}"
        return " ".join(filter(None, (self.curve, n, self.early_stopping, threshold, worth)))

    @property
    def is_cascade(self) -> bool:
        return self.strategy == "cascade"

    @property
    def is_fixed(self) -> bool:
        """Whether all problems are treated alike."""
        return self.strategy not in ("adaptive", "cascade")

    @property
    def is_costly(self) -> bool:
        """Whether it gets few problems, because it would take much of the time and others are to be compared."""
        if self.strategy in STOPPING and self.model == MODEL_NAME:
            return self.n >= SEVERAL
        return self.strategy not in CONTENDERS or self.n >= MANY

    def document(self) -> dict[str, Any]:
        return {
            "curve": self.curve,
            "strategy": self.strategy,
            "n": self.n,
            "model": self.model,
            "early_stopping": self.early_stopping,
            "threshold": self.threshold,
            "worth": self.worth,
            "spec": self.spec,
        }


def settings(names: Sequence[str], sizes: Sequence[int]) -> list[Setting]:
    """Returns the settings to compare. Strategies that choose begin at two samples, and those that stop early above
    four.
    """
    made = [one for name in names if name != "cascade" for one in _on_one_model(name, sizes)]
    several = [n for n in sizes if 1 < n < MANY]
    return made + (list(_cascades(several)) if "cascade" in names and several else [])


def _on_one_model(name: str, sizes: Sequence[int]) -> Iterator[Setting]:
    sizes = [n for n in sizes if (n == 1) == (name in ONE_SAMPLE) and (n < SEVERAL or name in ON_LARGE)]
    below = [n for n in sizes if n < MANY]
    for n in sizes:
        yield _plain(name, n)
        if name in STOPPING and 4 < n < MANY:
            yield from (_plain(name, n, early_stopping=rule) for rule in RULES)
    for n in below if name in ON_LARGE else ():
        yield _on_large(_plain(name, n, early_stopping="beta" if name in STOPPING and n > 4 else None))
    if name == "adaptive" and below:
        priced = [_plain(name, max(below), worth=worth) for worth in WORTHS]
        yield from [*priced, *map(_on_large, priced)]


def _plain(name: str, n: int, *, early_stopping: str | None = None, worth: float | None = None) -> Setting:
    """Returns a strategy on the small model."""
    spec: dict[str, Any] = {"name": name} | ({"n": n} if n > 1 else {})
    if name in STOPPING:
        spec["early_stopping"] = None if early_stopping == "confidence" else early_stopping
    if early_stopping == "confidence":
        spec["confidence"] = CONFIDENCE
    if worth is not None:
        spec["worth"] = worth
    return Setting(name, name, n, spec, early_stopping=early_stopping, worth=worth)


def _on_large(setting: Setting) -> Setting:
    return replace(setting, curve=f"large {setting.curve}", model=LARGE_MODEL_NAME)


def _cascades(sizes: Sequence[int]) -> Iterator[Setting]:
    """Yields cascades from the small model to the large one. sizes: the n of the last stage."""
    few, most = min(sizes), max(sizes)
    best, adaptive, sure = _large("best_of_n", few), _large("adaptive", most), _sample(0.8)
    for threshold in THRESHOLDS:
        yield _cascade(f"direct, large adaptive n={most}", [_sample(threshold), adaptive])
    told = _cascade(f"direct told the level, large adaptive n={most}", [sure, adaptive])
    yield replace(told, tells_level=True)
    yield _cascade("direct, large direct", [sure, _large("direct")])
    yield _cascade(f"direct, large best_of_n n={few}", [sure, best])
    yield _cascade(f"direct learnt, large best_of_n n={few}", [_sample(0.8, learn=True), best])
    vote = {"strategy": _plain("self_consistency", 4).spec, "accept": {"by": "agreement", "threshold": 0.75}}
    yield _cascade(f"vote, large best_of_n n={few}", [vote, best])
    if most > few:
        yield _cascade(f"direct, large best_of_n n={most}", [sure, _large("best_of_n", most, early_stopping="beta")])


def _sample(threshold: float, *, learn: bool = False) -> Stage:
    """Returns the stage of one sample that is accepted by the reward model's word, or by what the batch has learnt."""
    return {"accept": {"by": "reward", "threshold": threshold} | ({"learn": True} if learn else {})}


def _large(name: str, n: int = 1, *, early_stopping: str | None = None) -> Stage:
    return {"model": LARGE_MODEL_NAME, "strategy": dict(_plain(name, n, early_stopping=early_stopping).spec)}


def _cascade(curve: str, stages: Sequence[Stage]) -> Setting:
    n = max(int(stage.get("strategy", {}).get("n", 1)) for stage in stages)
    threshold = float(stages[0]["accept"]["threshold"])
    spec = {"name": "cascade", "stages": list(stages)}
    return Setting(f"cascade: {curve}", "cascade", n, spec, threshold=threshold)
