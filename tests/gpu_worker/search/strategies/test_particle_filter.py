"""Particle filtering, worked out by hand."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator

from ponder_worker.search.strategies.particle_filter import resampled
from ponder_worker.search.tree.candidate import Candidate
from ponder_worker.search.tree.node import Node

from .script import play


class Dice(random.Random):
    """Falls as it is told."""

    def __init__(self, numbers: Iterator[float]) -> None:
        super().__init__(0)
        self._numbers = numbers

    def random(self) -> float:
        return next(self._numbers)


def test_a_tree_worked_out_by_hand() -> None:
    script = {
        # Weights of 0.5, 0.3, 0.2 and, for saying nothing, 0: up to 0.5, to 0.8, to 1.
        "": [("a\n", 0.5), ("b\n", 0.3), ("c", 0.2), ("", 1.0)],
        # Of 0.4, 0.8, 0.6 and, for c, which has ended, 0.2, all over 2: up to 0.2, to 0.6, to 0.9, to 1.
        "a\n": [("1\n", 0.4)],
        "b\n": [("2\n", 0.8), ("3", 0.6)],
        # All have ended: they are ranked, and not drawn once more.
        "b\n2\n": [("4", 0.9), ("5", 0.1)],
    }
    falls = iter([0.1, 0.6, 0.55, 0.9, 0.3, 0.95, 0.5, 0.7])
    spec = {"name": "particle_filter", "n": 4, "temperature": 1.0}
    ranked, asked = play(script, spec, source=lambda number: Dice(falls))
    assert asked == [""] * 4 + ["a\n", "b\n", "b\n"] + ["b\n2\n"] * 2
    assert ranked == [("b\n2\n4", 0.9), ("b\n3", 0.6), ("c", 0.2), ("b\n2\n5", 0.1)]


def test_in_the_last_round_a_line_break_does_not_stop_a_particle() -> None:
    ranked, asked = play({"": [("a\nb\n", 0.5)]}, {"name": "particle_filter", "n": 1, "max_rounds": 1})
    assert asked == [""]
    assert ranked == [("a\nb\n", 0.5)]


def particles(*scores: float | None) -> list[Candidate]:
    return [Candidate(Node(place, None, place, 0, 0, 0), "", None, False, score) for place, score in enumerate(scores)]


def drawn(scores: list[float | None], temperature: float) -> list[int]:
    return [particle.node.index for particle in resampled(particles(*scores), temperature, random.Random(0))]


def test_scores_far_below_what_a_float_can_hold_are_drawn_by_their_ratio() -> None:
    assert set(drawn([-50_000.0, -50_100.0, -60_000.0], 1.0)) == {0}
    assert set(drawn([-50_000.0, -50_000.5] * 50, 1.0)) > {0, 1}


def test_a_higher_temperature_draws_more_evenly() -> None:
    scores: list[float | None] = [math.log(0.9)] * 500 + [math.log(0.1)] * 500
    shares = [sum(place < 500 for place in drawn(scores, temperature)) / 1000 for temperature in (0.5, 1.0, 100.0)]
    assert [round(share, 1) for share in shares] == [1.0, 0.9, 0.5]


def test_where_nobody_claims_anything_all_stay() -> None:
    assert drawn([None, None, None], 1.0) == [0, 1, 2]
