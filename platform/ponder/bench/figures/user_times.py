"""The times that users felt: how long they waited for what, and how even that was."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import Self

from ponder.bench.figures.interval_estimate import quantile, rank_correlation
from ponder.bench.job_record import JobRecord
from ponder.bench.suite import Part

_EARLY = 0.9
"""The share of jobs after which the rest are stragglers."""
_STEPS = 20


class Spread(Part):
    """Seconds at three percentiles; None where no job has the time."""

    p50: float | None
    p95: float | None
    p99: float | None

    @classmethod
    def of(cls, values: Sequence[float | None]) -> Self:
        known = sorted(value for value in values if value is not None)
        return cls(p50=quantile(known, 0.5), p95=quantile(known, 0.95), p99=quantile(known, 0.99))


class LevelTimes(Part):
    """The medians of the jobs of one level."""

    level: str
    running_s: float | None
    output_tokens: float | None


class UserTimes(Part):
    """Seconds from a job's submission, and how jobs differ.

    `end_to_end_s` is until the settlement, which is part of a tick of the worker; `running_s` is from the first token
    to the end of the search. `stragglers` is the share of the cell's time that was left when 90 % of its searches had
    ended, and `ended_by_s` are the seconds after which 0 %, 5 %, … 100 % of them had. The rank correlations are of
    the level with the time `running_s`, and with the output tokens.
    """

    first_token_s: Spread
    first_visible_token_s: Spread
    token_s: Spread
    end_to_end_s: Spread
    running_s: Spread
    output_tokens: Spread
    stragglers: float
    level_and_time: float | None
    level_and_tokens: float | None
    ended_by_s: tuple[float, ...]
    by_level: tuple[LevelTimes, ...]


def user_times_of(records: Sequence[JobRecord]) -> UserTimes:
    leveled = [(one.difficulty, one) for one in records if one.difficulty is not None and one.running_s is not None]
    levels = [level for level, _ in leveled]
    return UserTimes(
        first_token_s=Spread.of([one.first_token_s for one in records]),
        first_visible_token_s=Spread.of([one.first_visible_token_s for one in records]),
        token_s=Spread.of([one.token_s for one in records]),
        end_to_end_s=Spread.of([one.end_to_end_s for one in records]),
        running_s=Spread.of([one.running_s for one in records]),
        output_tokens=Spread.of([one.completion_tokens for one in records]),
        stragglers=_stragglers(records),
        level_and_time=rank_correlation(levels, [one.running_s or 0.0 for _, one in leveled]),
        level_and_tokens=rank_correlation(levels, [one.completion_tokens for _, one in leveled]),
        ended_by_s=_ended_by(records),
        by_level=tuple(_level_times(records)),
    )


def _ended_by(records: Sequence[JobRecord]) -> tuple[float, ...]:
    began = min(one.submitted_at for one in records)
    after = sorted(one.done_at - began for one in records)
    return tuple(round(quantile(after, step / _STEPS) or 0.0, 3) for step in range(_STEPS + 1))


def _level_times(records: Sequence[JobRecord]) -> Iterator[LevelTimes]:
    leveled = [(one.difficulty, one.level or "", one) for one in records if one.difficulty is not None]
    leveled.sort(key=lambda one: one[:2])
    for level, jobs in groupby(leveled, key=lambda one: one[1]):
        found = [one for _, _, one in jobs]
        running = sorted(one.running_s for one in found if one.running_s is not None)
        tokens = sorted(one.completion_tokens for one in found)
        yield LevelTimes(level=level, running_s=quantile(running, 0.5), output_tokens=quantile(tokens, 0.5))


def _stragglers(records: Sequence[JobRecord]) -> float:
    ended = sorted(one.done_at for one in records)
    began = min(one.submitted_at for one in records)
    early = ended[max(0, round(_EARLY * len(ended)) - 1)]
    return (ended[-1] - early) / (ended[-1] - began) if ended[-1] > began else 0.0
