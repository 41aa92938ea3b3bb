"""Experience for a batch: its own jobs foremost, and those of other batches as far as nothing better is known."""

from __future__ import annotations

from collections import defaultdict

import pytest

from ponder.domain.forecast.experience import BatchExperience, Experience, Observation, Sums
from ponder.domain.forecast.lengths import CellKey, Group

_CELL = ("f", "direct", "")
_OTHER = ("f", "direct", "hard")


def _sums(num_jobs: int, tokens: int, machine_s: float = 1.0) -> dict[str, float]:
    job = Observation(tokens, False, tokens, 10, 0, 40, "m", machine_s)
    sums: dict[str, float] = defaultdict(float)
    for _ in range(num_jobs):
        for name, value in job.sums().items():
            sums[name] += value
    return dict(sums)


def _together(*cells: Sums) -> Sums:
    return {name: sum(sums.get(name, 0.0) for sums in cells) for sums in cells for name in sums}


def _mean(experience: Experience, key: CellKey = _CELL) -> float:
    return experience.lengths.total([Group(key, 1, 1, 1e9)]).mean


def test_before_the_first_job_settles_it_says_what_the_tenant_s_experience_says() -> None:
    earlier = {_CELL: _sums(300, 100), _OTHER: _sums(40, 500)}
    found, general = BatchExperience({}, earlier), Experience(earlier)
    assert found.num_own == 0
    for key in (_CELL, _OTHER, ("f", "best_of_n n=4", "")):
        assert _mean(found, key) == pytest.approx(_mean(general, key))


def test_a_thousand_earlier_jobs_do_not_outweigh_a_hundred_of_the_batch_that_differ() -> None:
    own = {_CELL: _sums(100, 800)}
    found = BatchExperience(own, {_CELL: _together(own[_CELL], _sums(1_000, 100))})
    assert found.num_own == 100
    assert 600 < _mean(found) < 900
    assert _mean(Experience({_CELL: _together(own[_CELL], _sums(1_000, 100))})) < 300


def test_a_level_that_the_batch_has_not_reached_is_known_from_earlier_jobs() -> None:
    own = {_CELL: _sums(50, 100)}
    earlier = {_CELL: _sums(100, 100), _OTHER: _sums(100, 2_000)}
    found = BatchExperience(own, {_CELL: _together(own[_CELL], earlier[_CELL]), _OTHER: earlier[_OTHER]})
    assert _mean(found, _OTHER) > 1_000
    assert _mean(BatchExperience(own, own), _OTHER) < 300


def test_engine_time_is_known_from_all_jobs_of_the_machine_alike() -> None:
    own, earlier = {_CELL: _sums(10, 100, 3.0)}, _sums(1_000, 100, 1.0)
    found = BatchExperience(own, {_CELL: _together(own[_CELL], earlier)})
    seconds = found.seconds(_CELL, "m")
    assert seconds is not None
    assert seconds.value * 110 == pytest.approx(1.02, abs=0.01)


def test_the_times_of_a_pilot_count_only_where_no_more_earlier_jobs_are_known() -> None:
    own = {_CELL: _sums(30, 100, 3.0)}

    def found(num_earlier: int, num_pilot: int) -> tuple[float, bool]:
        tenant = {_CELL: _together(own[_CELL], _sums(num_earlier, 100, 1.0)) if num_earlier else own[_CELL]}
        experience = BatchExperience(own, tenant, num_pilot)
        seconds = experience.seconds(_CELL, "m")
        assert seconds is not None
        return round(seconds.value * 110, 1), experience.is_timed_by_pilot

    assert found(0, 30) == (3.0, True)
    assert found(10, 30) == (2.5, True)
    assert found(60, 30) == (1.0, False)
    assert found(60, 20) == (1.7, False), "others have settled too"


def test_a_whole_read_a_moment_before_its_part_makes_nothing_negative() -> None:
    found = BatchExperience({_CELL: _sums(3, 100)}, {_CELL: _sums(2, 100)})
    assert _mean(found) == pytest.approx(_mean(Experience({_CELL: _sums(3, 100)})))
