"""The lengths of jobs to come, learnt from settled ones."""

from __future__ import annotations

import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ponder.domain.forecast.histogram import Histogram, Lognormal, bin_of
from ponder.domain.forecast.lengths import Group, Lengths

_WIDE = 1e9
_KEY = ("f1", "direct", "1")

_lengths = st.lists(st.integers(1, 30_000), min_size=1, max_size=40)


def histogram(lengths: list[int], times: float = 1.0) -> Histogram:
    made = Histogram()
    for length in lengths:
        made.seen[bin_of(length)] = made.seen.get(bin_of(length), 0.0) + times
    return made


def sampled(num: int, median: float = 500, spread: float = 0.7, seed: int = 1) -> list[int]:
    draw = random.Random(seed)
    return [max(1, round(math.exp(draw.gauss(math.log(median), spread)))) for _ in range(num)]


@given(_lengths, st.integers(1, 1_000), st.integers(1, 1_000))
def test_the_totals_of_two_groups_of_a_cell_add_up(lengths: list[int], first: int, second: int) -> None:
    known = Lengths({_KEY: histogram(lengths)})
    whole = known.total([Group(_KEY, first + second, 1, 4_096)])
    parts = known.total([Group(_KEY, first, 1, 4_096), Group(_KEY, second, 1, 4_096)])
    assert parts.mean == pytest.approx(whole.mean)
    assert parts.variance == pytest.approx(whole.variance)
    assert parts.ceiling == whole.ceiling


@given(st.integers(10, 100), st.integers(1, 10_000), st.floats(0.2, 1.2), st.integers(0, 99), st.integers(4, 100))
def test_more_jobs_of_the_same_kind_narrow_the_interval_of_a_large_batch(
    num: int, median: int, spread: float, seed: int, times: int
) -> None:
    lengths = sampled(num, median, spread, seed)
    few, many = (
        Lengths({_KEY: histogram(lengths, weight)}).total([Group(_KEY, 10_000, 1, _WIDE)]) for weight in (1, times)
    )
    assert many.high / many.low < few.high / few.low


@given(_lengths, st.integers(1, 100_000), st.integers(1, 100_000))
def test_a_higher_cap_never_lowers_the_estimate_and_no_estimate_exceeds_its_cap(
    lengths: list[int], cap: int, more: int
) -> None:
    known = Lengths({_KEY: histogram(lengths)})
    low, high = (known.total([Group(_KEY, 100, 4, most)]) for most in (cap, cap + more))
    assert low.mean <= high.mean * (1 + 1e-9)
    assert low.mean <= low.ceiling * (1 + 1e-9)
    assert low.high <= low.ceiling == 400 * cap


@given(_lengths)
def test_an_interval_holds_its_estimate(lengths: list[int]) -> None:
    total = Lengths({_KEY: histogram(lengths)}).total([Group(_KEY, 50, 1, _WIDE)])
    assert 0 < total.low < total.high
    assert total.low < total.mean


def test_the_truth_lies_in_nine_intervals_of_ten() -> None:
    num_inside = 0
    for seed in range(200):
        known = Lengths({_KEY: histogram(sampled(50, seed=seed))})
        total = known.total([Group(_KEY, 1_000, 1, _WIDE)])
        num_inside += total.low <= sum(sampled(1_000, seed=10_000 + seed)) <= total.high
    assert 0.85 <= num_inside / 200 <= 0.96


def test_a_cell_without_jobs_is_estimated_from_its_neighbours() -> None:
    known = Lengths({("f1", "direct", level): histogram(sampled(200, 60, seed=int(level))) for level in "123"})
    neighbour = known.total([Group(("f1", "direct", "4"), 1_000, 1, _WIDE)])
    other = known.total([Group(("f1", "best_of_n n=4", "4"), 1_000, 4, _WIDE)])
    stranger = known.total([Group(("f2", "direct", "4"), 1_000, 1, _WIDE)])
    own = known.total([Group(("f1", "direct", "3"), 1_000, 1, _WIDE)])
    assert 50_000 < neighbour.mean < 150_000
    assert 4 * 50_000 < other.mean < 4 * 150_000
    assert stranger.mean > 300_000
    widths = [total.high / total.low for total in (own, neighbour, other, stranger)]
    assert widths == sorted(widths), "the farther the jobs it rests on, the wider the interval"


def test_levels_that_differ_much_say_less_about_another_one() -> None:
    alike = {("f1", "direct", level): histogram(sampled(200, 100, seed=int(level))) for level in "12345"}
    apart = {
        ("f1", "direct", level): histogram(sampled(200, 10 * 4 ** int(level), seed=int(level))) for level in "12345"
    }
    asked = [Group(("f1", "direct", "6"), 1_000, 1, _WIDE)]
    narrow, wide = (Lengths(cells).total(asked) for cells in (alike, apart))
    assert wide.high / wide.low > 3 * narrow.high / narrow.low


def test_what_a_few_jobs_of_a_level_show_is_drawn_towards_its_neighbours() -> None:
    cells = {("f1", "direct", level): histogram(sampled(500, 100, seed=int(level))) for level in "12345"}
    cells["f1", "direct", "6"] = histogram([1_000])
    known = Lengths(cells).total([Group(("f1", "direct", "6"), 1, 1, _WIDE)]).mean
    assert 130 < known < 800


def test_the_order_of_cells_does_not_matter() -> None:
    cells = {("f1", name, level): histogram(sampled(20, 80, seed=ord(level))) for name in ("a", "b") for level in "12"}
    asked = [Group(("f1", "a", "3"), 10, 1, _WIDE), Group(("f1", "b", "1"), 10, 2, _WIDE)]
    there, back = Lengths(cells).total(asked), Lengths(dict(reversed(cells.items()))).total(asked[::-1])
    assert there.mean == pytest.approx(back.mean)
    assert there.variance == pytest.approx(back.variance)


def cut(lengths: list[int], cap: int) -> Histogram:
    made = histogram([length for length in lengths if length < cap])
    if num := sum(length >= cap for length in lengths):
        made.censored[bin_of(cap)] = float(num)
    return made


def test_jobs_that_hit_their_cap_tell_everything_about_that_cap_and_a_part_about_a_higher_one() -> None:
    lengths = sampled(2_000, 500)
    known = Lengths({_KEY: cut(lengths, 512)})
    same = known.total([Group(_KEY, 2_000, 1, 512)])
    assert same.mean == pytest.approx(sum(min(length, 512) for length in lengths), rel=0.03)
    higher = known.total([Group(_KEY, 2_000, 1, 8_192)])
    assert higher.mean == pytest.approx(sum(lengths), rel=0.15), "not the mean of the cut lengths, which is 40 % lower"
    assert higher.high / higher.low > same.high / same.low


def test_censored_lengths_are_fitted_by_their_distribution() -> None:
    lengths = sampled(5_000, 500, 0.7)
    found = cut(lengths, 500).fit(Lognormal(math.log(400), 0.5)).lognormal
    assert math.exp(found.mean) == pytest.approx(500, rel=0.05)
    assert math.sqrt(found.variance) == pytest.approx(0.7, rel=0.07)


def test_jobs_that_were_all_cut_off_give_a_finite_estimate_above_their_cap() -> None:
    known = Lengths({_KEY: cut([2_000] * 30, 1_000)})
    total = known.total([Group(_KEY, 100, 1, 100_000)])
    assert 100_000 < total.mean < 10_000_000
    assert math.isfinite(total.high)


def test_a_low_cap_does_not_hide_that_nothing_is_known() -> None:
    total = Lengths({}).total([Group(_KEY, 1_000, 1, 320)])
    assert total.low < 60_000 < total.mean
    assert total.high <= 320_000


def test_nothing_known_is_the_general_prior() -> None:
    total = Lengths({}).total([Group(_KEY, 100, 1, 32_768)])
    assert 100 * 200 < total.mean < 100 * 3_000
    assert total.high / total.low > 20
