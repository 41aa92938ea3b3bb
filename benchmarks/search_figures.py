"""Figures of settled tasks: shares and costs with 95 % intervals, and comparisons of settings."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from ponder.ledger.interval import share_interval

RESAMPLES = 2000
TOLERANCE = 0.01
"""Settings this much less accurate, at the most, count as equally accurate."""
MIXED = "mixed"


class Setting(Protocol):
    strategy: str
    n: int
    early_stopping: str | None

    @property
    def name(self) -> str: ...


@dataclass(frozen=True, slots=True)
class Task:
    """One problem under one setting. `number` is its rank among the problems of its level."""

    level: str
    number: int
    passed: bool
    tokens: int
    reward_tokens: int
    nanodollars: int
    error: str | None


def figures(tasks: Sequence[Task]) -> dict[str, Any]:
    """The figures by level, and of all levels together."""
    levels = sorted({task.level for task in tasks})
    groups = {level: [task for task in tasks if task.level == level] for level in levels} | {MIXED: list(tasks)}
    return {
        "failed_jobs": sum(task.error is not None for task in tasks),
        "levels": {level: _figures(group) for level, group in groups.items()},
    }


def _figures(tasks: Sequence[Task]) -> dict[str, Any]:
    passed = np.array([task.passed for task in tasks], float)
    tokens = np.array([task.tokens for task in tasks], float)
    dollars = np.array([task.nanodollars for task in tasks]) / 1e9
    drawn = _draws(tasks)
    solved = passed[drawn].sum(1)
    return {
        "problems": len(tasks),
        "accuracy": _round(passed.mean()),
        "accuracy_95": [_round(end) for end in share_interval(int(passed.sum()), len(tasks))],
        "tokens": _round(tokens.mean()),
        "tokens_95": _interval(tokens[drawn].mean(1)),
        "reward_tokens": _round(np.mean([task.reward_tokens for task in tasks])),
        "dollars": _round(dollars.mean()),
        "dollars_95": _interval(dollars[drawn].mean(1)),
        "tokens_per_success": _round(tokens.sum() / passed.sum()) if passed.any() else None,
        "dollars_per_success": _round(dollars.sum() / passed.sum()) if passed.any() else None,
        "dollars_per_success_95": _interval(dollars[drawn].sum(1) / solved) if solved.all() else None,
    }


def compare_stopping(tasks: Mapping[Any, Sequence[Task]]) -> list[dict[str, Any]]:
    """Comparison of each stopping rule with no rule, on the same problems and samples."""
    whole = {(one.strategy, one.n): tasks[one] for one in tasks if one.early_stopping is None}
    return [
        {"setting": one.name} | _against(tasks[one], whole[one.strategy, one.n])
        for one in tasks
        if one.early_stopping is not None and (one.strategy, one.n) in whole
    ]


def compare_adaptive(tasks: Mapping[Any, Sequence[Task]]) -> list[dict[str, Any]]:
    """Comparison of each size of adaptive with every other setting on the same problems, and with the best one.

    The best one has the lowest cost per successful task among those that are at least as accurate. If there is none, it
    is the most accurate one.
    """
    compared = []
    for one in (one for one in tasks if one.strategy == "adaptive"):
        others = {other: tasks[other] for other in tasks if other.strategy != "adaptive" and other.n <= one.n}
        against = {other.name: _against(tasks[one], others[other]) for other in others}
        for kind, chosen in (
            ("without early stopping", [other for other in others if other.early_stopping is None]),
            ("with any", list(others)),
        ):
            best = _best({other.name: against[other.name] for other in chosen})
            compared.append({"setting": one.name, "fixed": kind, "best_fixed": best} | (against[best] if best else {}))
        compared.append({"setting": one.name, "against": against})
    return compared


def reached(tasks: Mapping[Any, Sequence[Task]]) -> list[dict[str, Any]]:
    """The levels of accuracy that fixed strategies reach above one sample, and what `adaptive` pays for each.

    A level is a fixed setting that no cheaper one equals in accuracy. Of the sizes of `adaptive` that are as accurate,
    the cheapest is compared; None if there is none. Settings of other problems are left out.
    """
    one_sample = next((one for one in tasks if one.strategy == "direct"), None)
    if one_sample is None:
        return []
    comparable = {one: _price(tasks[one]) for one in tasks if len(tasks[one]) == len(tasks[one_sample])}
    adaptive = [one for one in comparable if one.strategy == "adaptive"]
    levels, most = [], comparable[one_sample][0]
    for fixed in sorted(comparable.keys() - set(adaptive), key=lambda one: comparable[one][1]):
        accuracy = comparable[fixed][0]
        if accuracy <= most:
            continue
        most = accuracy
        equal = [one for one in adaptive if comparable[one][0] >= accuracy - TOLERANCE]
        cheapest = min(equal, key=lambda one: comparable[one][1], default=None)
        against = _against(tasks[cheapest], tasks[fixed]) if cheapest is not None else {}
        levels.append({"fixed": fixed.name, "adaptive": cheapest.name if cheapest is not None else None} | against)
    return levels


def _price(tasks: Sequence[Task]) -> tuple[float, float]:
    """The accuracy, and the nano-dollars per success."""
    num_passed = sum(task.passed for task in tasks)
    return num_passed / len(tasks), sum(task.nanodollars for task in tasks) / max(num_passed, 1)


def _best(against: Mapping[str, Mapping[str, Any]]) -> str | None:
    most = max((cell["accuracy_of_other"] for cell in against.values()), default=0.0)
    equal = [
        name for name, cell in against.items() if cell["accuracy_of_other"] >= min(most, cell["accuracy"] - TOLERANCE)
    ]
    return min(equal, key=lambda name: against[name]["dollars_per_success_of_other"], default=None)


def _against(tasks: Sequence[Task], others: Sequence[Task]) -> dict[str, Any]:
    """Comparison of two settings, paired by problem. Ratios are other / one: above 1 the other one costs more."""
    keys = _by_place(others)
    pairs = [(task, keys[place]) for place, task in _by_place(tasks).items() if place in keys]
    drawn = _draws([task for task, _ in pairs])
    passed, tokens, dollars = (
        np.array([[getattr(task, name), getattr(other, name)] for task, other in pairs], float)
        for name in ("passed", "tokens", "nanodollars")
    )
    cost = dollars[drawn].sum(1) / np.maximum(passed[drawn].sum(1), 1)
    token_sums = tokens[drawn].sum(1)
    return {
        "problems": len(pairs),
        "accuracy": _round(passed[:, 0].mean()),
        "accuracy_of_other": _round(passed[:, 1].mean()),
        "accuracy_gain": _round(passed[:, 0].mean() - passed[:, 1].mean()),
        "accuracy_gain_95": _interval((passed[drawn][:, :, 0] - passed[drawn][:, :, 1]).mean(1)),
        "tokens_ratio": _round(tokens[:, 1].sum() / tokens[:, 0].sum()),
        "tokens_ratio_95": _interval(token_sums[:, 1] / token_sums[:, 0]),
        "dollars_per_success_of_other": _round(dollars[:, 1].sum() / 1e9 / max(passed[:, 1].sum(), 1)),
        "cost_per_success_ratio": _round(
            dollars[:, 1].sum() / max(passed[:, 1].sum(), 1) / (dollars[:, 0].sum() / max(passed[:, 0].sum(), 1))
        ),
        "cost_per_success_ratio_95": _interval(cost[:, 1] / cost[:, 0]),
    }


def _by_place(tasks: Sequence[Task]) -> dict[tuple[str, int], Task]:
    return {(task.level, task.number): task for task in tasks}


def _draws(tasks: Sequence[Task]) -> Any:
    """Indices of bootstrap samples, `[RESAMPLES, num_tasks]`. Each level keeps its number of problems."""
    random = np.random.default_rng(0)
    levels = np.array([task.level for task in tasks])
    parts = []
    for level in sorted(set(levels)):
        own = np.flatnonzero(levels == level)
        parts.append(random.choice(own, (RESAMPLES, len(own))))
    return np.concatenate(parts, axis=1)


def _interval(values: Any) -> list[float]:
    low, high = np.percentile(values, [2.5, 97.5])
    return [_round(low), _round(high)]


def _round(value: Any) -> float:
    return float(f"{float(value):.4g}")
