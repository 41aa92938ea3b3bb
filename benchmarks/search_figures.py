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
ONE_SAMPLE = "direct n=1"
"""The setting whose accuracy the others are to exceed: one sample of the small model."""


class Setting(Protocol):
    curve: str
    strategy: str
    n: int
    early_stopping: str | None

    @property
    def is_fixed(self) -> bool: ...

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
    whole = {(one.curve, one.n): tasks[one] for one in tasks if one.early_stopping is None}
    return [
        {"setting": one.name} | _against(tasks[one], whole[one.curve, one.n])
        for one in tasks
        if one.early_stopping is not None and (one.curve, one.n) in whole
    ]


def reached(tasks: Mapping[Any, Sequence[Task]]) -> list[dict[str, Any]]:
    """The levels of accuracy that fixed settings reach above one sample, and what the others pay for each.

    A level is a fixed setting that no cheaper one equals in accuracy. For `adaptive` and for `cascade`, the cheapest
    setting that is as accurate is compared; there may be none. Settings of other problems are left out.
    """
    one_sample = next((one for one in tasks if one.name == ONE_SAMPLE), None)
    if one_sample is None:
        return []
    prices = {one: _price(tasks[one]) for one in tasks if len(tasks[one]) == len(tasks[one_sample])}
    levels, most = [], prices[one_sample][0]
    for fixed in sorted((one for one in prices if one.is_fixed), key=lambda one: prices[one][1]):
        accuracy = prices[fixed][0]
        if accuracy <= most:
            continue
        most = accuracy
        level: dict[str, Any] = {"fixed": fixed.name, "accuracy": _round(accuracy)}
        for strategy in sorted({one.strategy for one in prices if not one.is_fixed}):
            equal = [one for one in prices if one.strategy == strategy and prices[one][0] >= accuracy - TOLERANCE]
            if equal:
                cheapest = min(equal, key=lambda one: prices[one][1])
                level[strategy] = {"setting": cheapest.name} | _against(tasks[cheapest], tasks[fixed])
        levels.append(level)
    return levels


def _price(tasks: Sequence[Task]) -> tuple[float, float]:
    """The accuracy, and the nano-dollars per success."""
    num_passed = sum(task.passed for task in tasks)
    return num_passed / len(tasks), sum(task.nanodollars for task in tasks) / max(num_passed, 1)


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
        "verdicts_won": int((passed[:, 0] > passed[:, 1]).sum()),
        "verdicts_lost": int((passed[:, 0] < passed[:, 1]).sum()),
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
