"""The accuracy of a cell: pass@1, and what its samples would get right if some of them were chosen from."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from random import Random

from pydantic import Field

from ponder.bench.figures.grades import Grades
from ponder.bench.figures.interval_estimate import Estimate, mean, mean_share, share
from ponder.bench.job_record import Candidate, JobRecord
from ponder.bench.suite import Part

_SAMPLERS = ("direct", "self_consistency", "best_of_n")
"""Strategies whose candidates are independent samples, which the estimators of pass@k and maj@k need."""
_DRAWS = 50
"""Subsets of samples that maj@k is averaged over."""


class LevelAccuracy(Part):
    level: str
    num_problems: int
    pass_1: Estimate


class Accuracy(Part):
    """Figures over problems. `pass_1` is the accuracy of the answers that jobs returned, over all seeds.

    `pass_k`, `maj_k` and `best_k` are by k: the chance that one of k samples is right, that their majority is, and
    that the one with the highest score is. Samples are the candidates of a job, or the jobs of a problem where each
    makes one. `graded` is the share of samples whose verdict is known; the others count as wrong.

    All of them follow the verdict of the data set's verifier. `judged` is the share of jobs whose verdict is a model's,
    `num_compared` counts those whose answer the reference called right or wrong as well, and `agreement` is the share
    of these on which both say the same.
    """

    num_problems: int
    num_jobs: int
    pass_1: Estimate
    unverified: float
    failed: float
    by_level: tuple[LevelAccuracy, ...] = ()
    pass_k: dict[int, Estimate] = Field(default_factory=dict)
    maj_k: dict[int, Estimate] = Field(default_factory=dict)
    best_k: dict[int, Estimate] = Field(default_factory=dict)
    graded: float | None = None
    judged: float = 0.0
    num_compared: int = 0
    agreement: float | None = None


@dataclass(frozen=True, slots=True)
class Sample:
    """An answer, its score if it has one, and whether it is known to be right."""

    answer: str | None
    score: float | None
    is_right: bool


_Samples = Sequence[Sample]


def accuracy_of(records: Sequence[JobRecord], strategy: str, grades: Grades) -> Accuracy:
    problems = list(_by_problem(records).values())
    levels = sorted({one.level for one in records if one.level is not None}, key=_order)
    at_level = {level: [jobs for jobs in problems if jobs[0].level == level] for level in levels}
    sets = _sample_sets(problems, strategy, grades)
    samples = [[candidate for candidates in jobs for candidate in candidates] for jobs in sets]
    compared = [one for one in records if one.is_compared]
    num_graded = [grades.grade(record.problem, one.answer) is not None for record in records for one in _made(record)]
    return Accuracy(
        num_problems=len(problems),
        num_jobs=len(records),
        pass_1=_pass_1(problems),
        unverified=_part(records, lambda one: one.verdict == "unverified"),
        failed=_part(records, lambda one: one.verdict is None),
        by_level=tuple(
            LevelAccuracy(level=level, num_problems=len(jobs), pass_1=_pass_1(jobs)) for level, jobs in at_level.items()
        ),
        pass_k=_by_k(sets, pass_at_k),
        maj_k=_by_k(sets, majority_at_k),
        best_k=_by_k(sets, best_at_k) if _all_scored(samples) else {},
        graded=mean([float(one) for one in num_graded]) if sets else None,
        judged=_part(records, lambda one: one.judged),
        num_compared=len(compared),
        agreement=_part(compared, lambda one: one.verdict == one.checked) if compared else None,
    )


def pass_at_k(samples: _Samples, k: int) -> float:
    """Returns 1 - C(n - c, k) / C(n, k) for c right ones of n samples: the unbiased estimator of M. Chen et al.,
    Evaluating Large Language Models Trained on Code (2021), https://arxiv.org/abs/2107.03374.
    """
    num, num_right = len(samples), sum(one.is_right for one in samples)
    return 1 - math.comb(num - num_right, k) / math.comb(num, k)


def best_at_k(samples: _Samples, k: int) -> float:
    """Returns how probable it is that of k samples, drawn from all, the one with the highest score is right.

    The i-th best is the best of k if the others are drawn from those below it: C(n - 1 - i, k - 1) of C(n, k) draws.
    """
    num = len(samples)
    ranked = sorted(samples, key=lambda one: -math.inf if one.score is None else one.score, reverse=True)
    return sum(math.comb(num - 1 - place, k - 1) for place, one in enumerate(ranked) if one.is_right) / math.comb(
        num, k
    )


def majority_at_k(samples: _Samples, k: int) -> float:
    """Returns how often the most frequent answer of k samples is right, over draws; the first one wins a tie."""
    if k == 1:
        return sum(one.is_right for one in samples) / len(samples)
    if k == len(samples):
        return float(_majority(samples))
    rng = Random(k)  # noqa: S311
    return sum(_majority(rng.sample(samples, k)) for _ in range(_DRAWS)) / _DRAWS


def _majority(samples: _Samples) -> bool:
    votes = Counter(one.answer for one in samples if one.answer is not None)
    if not votes:
        return False
    winner = votes.most_common(1)[0][0]
    return next(one.is_right for one in samples if one.answer == winner)


def _by_k(sets: Sequence[Sequence[_Samples]], estimator: Callable[[_Samples, int], float]) -> dict[int, Estimate]:
    """Returns an estimator's mean over problems for k = 1, 2, 4 … and the largest k that every job has samples for."""
    most = min((len(samples) for jobs in sets for samples in jobs), default=0)
    ks = sorted({*(2**power for power in range(most.bit_length()) if 2**power <= most), most} - {0})
    found = {}
    for k in ks:
        values = [sum(estimator(samples, k) for samples in jobs) / len(jobs) for jobs in sets]
        found[k] = mean_share(values)
    return found if most > 1 else {}


def _sample_sets(problems: Sequence[Sequence[JobRecord]], strategy: str, grades: Grades) -> list[list[list[Sample]]]:
    """Returns for each problem one or several sets of independent samples; none for a strategy that makes no such."""
    if strategy not in _SAMPLERS:
        return []

    def sample(record: JobRecord, one: Candidate) -> Sample:
        return Sample(one.answer, one.score, grades.grade(record.problem, one.answer) is True)

    if strategy == "direct":
        return [[[Sample(job.answer, None, job.has_passed) for job in jobs]] for jobs in problems]
    return [[[sample(job, one) for one in job.candidates] for job in jobs] for jobs in problems]


def _made(record: JobRecord) -> Sequence[Candidate]:
    return record.candidates or [Candidate(record.answer, None)]


def _all_scored(samples: Iterable[_Samples]) -> bool:
    scores = [one.score for each in samples for one in each]
    return bool(scores) and None not in scores


def _pass_1(problems: Sequence[Sequence[JobRecord]]) -> Estimate:
    if all(len(jobs) == 1 for jobs in problems):
        return share(sum(jobs[0].has_passed for jobs in problems), len(problems))
    return mean_share([_part(jobs, lambda one: one.has_passed) for jobs in problems])


def _part(records: Sequence[JobRecord], condition: Callable[[JobRecord], bool]) -> float:
    return sum(map(condition, records)) / len(records)


def _by_problem(records: Iterable[JobRecord]) -> dict[str, list[JobRecord]]:
    found: defaultdict[str, list[JobRecord]] = defaultdict(list)
    for record in records:
        found[record.problem].append(record)
    return found


def _order(level: str) -> tuple[float, str]:
    digits = "".join(filter(str.isdigit, level))
    return (float(digits) if digits else math.inf, level)
