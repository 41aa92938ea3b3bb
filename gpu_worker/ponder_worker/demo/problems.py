"""Templated problems of five levels, each with its worked solution, and the split between training and test.

A hash of its prompt alone decides whether a problem is held out, so no measured problem was ever trained on.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import blake2b
from random import Random
from typing import Literal

from ponder_worker.demo.expression import random_expression
from ponder_worker.demo.words import random_comparison, random_story

Kind = Literal["expression", "story", "comparison"]
KINDS: tuple[Kind, ...] = ("expression", "story", "comparison")
HELD_OUT_SHARE = 20
"""One prompt in this many is held out."""


@dataclass(frozen=True, slots=True)
class Level:
    """A degree of difficulty: how many operations a problem takes, and how large any value in it may grow."""

    number: int
    min_operations: int
    max_operations: int
    max_value: int


LEVELS = (Level(1, 1, 1, 99), Level(2, 2, 3, 99), Level(3, 4, 5, 99), Level(4, 6, 7, 200), Level(5, 8, 10, 300))


@dataclass(frozen=True, slots=True)
class Problem:
    """A prompt of one line, and the solution that the demo models were taught."""

    prompt: str
    steps: tuple[str, ...]
    answer: int
    level: int
    kind: Kind

    @property
    def solution(self) -> str:
        """One step a line, and the last line ``Answer: N``."""
        return "\n".join((*self.steps, f"Answer: {self.answer}"))


def is_held_out(prompt: str) -> bool:
    """True for about one prompt in `HELD_OUT_SHARE`, the same on every machine and in every run."""
    digest = blake2b(prompt.encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") % HELD_OUT_SHARE == 0


def random_problem(rng: Random, level: int, kind: Kind) -> Problem:
    """A random problem of either split; `level` is 1..5."""
    spec = LEVELS[level - 1]
    num_operations = rng.randint(spec.min_operations, spec.max_operations)
    if kind == "expression":
        expression = random_expression(rng, num_operations, spec.max_value)
        return Problem(f"Compute {expression}.", expression.steps(), expression.value, level, kind)
    words = random_story if kind == "story" else random_comparison
    prompt, steps, answer = words(rng, num_operations, spec.max_value)
    return Problem(prompt, steps, answer, level, kind)


def training_problem(rng: Random, level: int, kind: Kind) -> Problem:
    """A random problem that is not held out."""
    while is_held_out((problem := random_problem(rng, level, kind)).prompt):
        pass
    return problem


def held_out_problems(per_level: int = 100, seed: int = 0, kinds: tuple[Kind, ...] | None = None) -> list[Problem]:
    """Different held-out problems, `per_level` of each level, level 1 first, with the kinds taking turns.

    The result depends on the arguments only. A larger `per_level` begins each level with the same problems. Without
    `kinds`, levels 4 and 5 hold two expressions for every comparison.
    """
    problems: list[Problem] = []
    for spec in LEVELS:
        rng = Random(f"{seed}/{spec.number}")  # noqa: S311
        problems.extend(_held_out(rng, spec, per_level, kinds or _measured_kinds(spec.number)))
    return problems


def _measured_kinds(level: int) -> tuple[Kind, ...]:
    """The kinds to measure on a level. The hard ones have no stories, because the generator solves them at once."""
    return KINDS if level <= 3 else ("expression", "expression", "comparison")


def _held_out(rng: Random, spec: Level, count: int, kinds: tuple[Kind, ...]) -> Iterator[Problem]:
    seen: set[str] = set()
    while len(seen) < count:
        problem = random_problem(rng, spec.number, kinds[len(seen) % len(kinds)])
        if is_held_out(problem.prompt) and problem.prompt not in seen:
            seen.add(problem.prompt)
            yield problem
