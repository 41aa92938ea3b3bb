"""The probe of a reward model: whether it notices one wrong result in a right solution."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from random import Random

from ponder_worker.demo.problems import Problem

StepScores = Callable[[Sequence[tuple[str, Sequence[str]]]], list[list[float]]]
"""A function from (prompt, steps) pairs to a score for every step; higher is better."""
OFFSETS = (1, 10)


@dataclass(frozen=True, slots=True)
class ProbeResult:
    """The outcome of a probe.

    accused: the share of right steps below the threshold. found: the share of corrupted steps below it, by offset.
    auc: how often a right step scores above a corrupted one, by offset.
    """

    threshold: float
    accused: float
    found: dict[int, float]
    auc: dict[int, float]


def corrupted(problem: Problem, step: int, offset: int) -> list[str]:
    """The steps up to and including `step`, with the result of that one off by `offset`."""
    before, _, result = problem.steps[step].rpartition("= ")
    return [*problem.steps[:step], f"{before}= {int(result) + offset}"]


def probe(score: StepScores, problems: Sequence[Problem], rng: Random, accuse: float = 0.01) -> ProbeResult:
    """Corrupt one step of each problem by each offset.

    The threshold is set on every second problem, such that a share `accuse` of the right steps is below it. All
    reported figures are measured on the other problems.
    """
    calibrate = [value for steps in _right(score, problems[::2]) for value in steps]
    threshold = sorted(calibrate)[int(len(calibrate) * accuse)]
    tested = problems[1::2]
    right = [value for steps in _right(score, tested) for value in steps]
    where = [rng.randrange(len(problem.steps)) for problem in tested]
    found, auc = {}, {}
    for offset in OFFSETS:
        pairs = [(p.prompt, corrupted(p, step, offset)) for p, step in zip(tested, where, strict=True)]
        wrong = [steps[-1] for steps in score(pairs)]
        found[offset] = sum(value < threshold for value in wrong) / len(wrong)
        auc[offset] = area_under_curve(right, wrong)
    return ProbeResult(threshold, sum(value < threshold for value in right) / len(right), found, auc)


def area_under_curve(right: Sequence[float], wrong: Sequence[float]) -> float:
    """The chance that a value of `right` is larger than one of `wrong`, ties counting half."""
    wins = sum((r > w) + 0.5 * (r == w) for r in right for w in wrong)
    return wins / (len(right) * len(wrong))


def _right(score: StepScores, problems: Sequence[Problem]) -> list[list[float]]:
    return score([(problem.prompt, problem.steps) for problem in problems])
