"""Predicts what the jobs of a survey will take: tokens, dollars and time, each with its interval and its grounds."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace

from sqlalchemy import Connection

from ponder.domain.forecast.experience import Experience
from ponder.domain.forecast.lengths import CellKey, Group, Lengths
from ponder.domain.forecast.ratio import Estimate, mixed
from ponder.domain.forecast.total import Total
from ponder.jobs.estimating.fleet import Fleet, fleet_of
from ponder.jobs.estimating.observe import observed_in
from ponder.jobs.estimating.survey import JobGroup, Survey, stored_survey

_HOUR_S = 3_600
_FULLER = 0.5
"""A token's engine time in full steps may well be so much of that in the steps of a pilot."""


@dataclass(frozen=True, slots=True)
class Part:
    """The jobs of one cell, and how many settled jobs are known of the cell itself and of its model."""

    model: str
    strategy: str
    level: str
    num_jobs: int
    num_settled: int
    num_of_model: int


@dataclass(frozen=True, slots=True)
class Prediction:
    """The totals of a batch. Money is in nano-dollars. Money and times are None while nothing tells them."""

    num_jobs: int
    prompt: Total
    generated: Total
    reward: Total
    seconds: Total | None
    direct: Total | None
    """The direct cost, without overhead."""
    parts: Sequence[Part]
    fleets: Sequence[Fleet]
    unknown: str | None
    """The reason why there is neither time nor money."""

    def timed_by_pilot(self) -> Prediction:
        """Returns it with intervals of time and money that reach down to what full workers may need.

        A pilot leaves workers less full than the batch will, and a fuller step costs each of its jobs less.
        """
        return replace(self, seconds=_reaching_down(self.seconds), direct=_reaching_down(self.direct))

    def wall_seconds(self, num_workers: int) -> Total | None:
        """Returns the time of so many workers that are always busy, and do nothing else."""
        return None if self.seconds is None or num_workers < 1 else self.seconds.times(1 / num_workers)

    @property
    def num_workers(self) -> int:
        return sum(fleet.num_workers for fleet in self.fleets)


@dataclass(frozen=True, slots=True)
class _Cell:
    """The jobs of one cell, with their scaled sums."""

    key: CellKey
    is_scored: bool
    num_jobs: float
    prompt_bytes: float
    prompt_ids: float
    generated: float
    """The mean of its total."""


@dataclass(frozen=True, slots=True)
class BatchPrediction:
    """The totals of a batch's jobs, the survey of these, and how many settled jobs of its own they rest on."""

    totals: Prediction
    survey: Survey
    num_own: int


def predict_batch(
    connection: Connection, tenant_id: str, batch_id: str, *, num_pilot: int, num_pending: int | None = None
) -> BatchPrediction | None:
    """Predicts the totals of all jobs of a batch, or of those that are pending, by its own settled jobs foremost.

    `num_pilot` is the number of jobs of its pilot. Returns None for a batch that was begun before surveys were kept.
    """
    survey = stored_survey(connection, batch_id)
    if survey is None:
        return None
    experience = observed_in(connection, tenant_id, batch_id, survey.cells, num_pilot=num_pilot)
    if num_pending is not None:
        survey = survey.remaining(experience.num_settled, num_pending)
    found = predict(connection, survey, experience)
    if experience.is_timed_by_pilot:
        found = found.timed_by_pilot()
    return BatchPrediction(found, survey, experience.num_own)


def predict(connection: Connection, survey: Survey, experience: Experience) -> Prediction:
    """Predicts the totals of all jobs that a file would become."""
    groups = list(survey.groups.values())
    asked = [_group(group, survey.scale) for group in groups]
    cells = _cells(groups, asked, experience.lengths, survey.scale)
    num_jobs = sum(cell.num_jobs for cell in cells)
    generated = experience.lengths.total(asked)
    prompt = _prompt(cells, experience, num_jobs)
    of_reward = mixed(
        [(experience.reward(cell.key, is_scored=cell.is_scored), cell.generated, cell.num_jobs) for cell in cells]
    )
    fleets = {key: fleet_of(connection, key, experience) for key in sorted({cell.key[0] for cell in cells})}
    unknown = next((fleet.unknown for fleet in fleets.values() if fleet.unknown), None)
    tokens = Total(prompt.mean + generated.mean, prompt.variance + generated.variance)
    seconds = direct = None
    if unknown is None:
        rates = [_rate(cell, fleets[cell.key[0]], experience) for cell in cells]
        prices = [fleets[cell.key[0]].nanodollars_per_hour / _HOUR_S for cell in cells]
        seconds = _timed(cells, rates, experience).apply(tokens, num_jobs)
        priced = [rate.times(price) for rate, price in zip(rates, prices, strict=True)]
        direct = _timed(cells, priced, experience).apply(tokens, num_jobs)
    return Prediction(
        num_jobs=round(num_jobs),
        prompt=prompt,
        generated=generated,
        reward=of_reward.apply(generated, num_jobs),
        seconds=seconds,
        direct=direct,
        parts=_parts(groups, experience.lengths, survey.scale),
        fleets=list(fleets.values()),
        unknown=unknown,
    )


def _reaching_down(total: Total | None) -> Total | None:
    return total and replace(total, floor=min(total.floor, total.mean * _FULLER))


def _group(group: JobGroup, scale: float) -> Group:
    return Group(group.size.key, group.num_jobs * scale, group.size.samples, group.cap / group.num_jobs)


def _cells(groups: Sequence[JobGroup], asked: Sequence[Group], lengths: Lengths, scale: float) -> list[_Cell]:
    """Merges the groups of each cell."""
    merged: dict[tuple[CellKey, bool], list[tuple[JobGroup, Group]]] = defaultdict(list)
    for group, one in zip(groups, asked, strict=True):
        merged[one.key, group.is_scored].append((group, one))
    return [
        _Cell(
            key=key,
            is_scored=is_scored,
            num_jobs=sum(one.num_jobs for _, one in found),
            prompt_bytes=scale * sum(group.prompt_bytes for group, _ in found),
            prompt_ids=scale * sum(group.prompt_ids for group, _ in found),
            generated=sum(one.num_jobs * lengths.place(key).job(one.samples, one.cap)[0] for _, one in found),
        )
        for (key, is_scored), found in merged.items()
    ]


def _prompt(cells: Sequence[_Cell], experience: Experience, num_jobs: float) -> Total:
    of_texts = mixed([(experience.prompt(cell.key), cell.prompt_bytes, cell.num_jobs) for cell in cells])
    texts = of_texts.apply(Total(sum(cell.prompt_bytes for cell in cells), 0.0), num_jobs)
    return Total(texts.mean + sum(cell.prompt_ids for cell in cells), texts.variance)


def _timed(cells: Sequence[_Cell], rates: Sequence[Estimate], experience: Experience) -> Estimate:
    """Mixes what a token of each cell takes, by the tokens of their prompts and answers."""
    tokens = (
        cell.prompt_bytes * experience.prompt(cell.key).value + cell.prompt_ids + cell.generated for cell in cells
    )
    return mixed([(rate, x, cell.num_jobs) for cell, rate, x in zip(cells, rates, tokens, strict=True)])


def _rate(cell: _Cell, fleet: Fleet, experience: Experience) -> Estimate:
    assert fleet.machine is not None
    found = experience.seconds(cell.key, fleet.machine)
    assert found is not None, "a fleet whose machine was never timed"
    return found


def _parts(groups: Sequence[JobGroup], lengths: Lengths, scale: float) -> list[Part]:
    names = {group.size.key: group.model for group in groups}
    jobs: dict[CellKey, float] = defaultdict(float)
    for group in groups:
        jobs[group.size.key] += group.num_jobs * scale
    return [
        Part(names[key], key[1], key[2], round(num), lengths.num_settled(*key), lengths.num_settled(key[0]))
        for key, num in sorted(jobs.items(), key=lambda item: -item[1])
    ]
