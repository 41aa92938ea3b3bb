"""Templated problems of five levels, each with its worked solution, and the split between training and test.

A hash of its prompt alone decides whether a problem is held out, so no measured problem was ever trained on.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import blake2b
from random import Random
from typing import Literal

Kind = Literal["expression", "story", "comparison"]
KINDS: tuple[Kind, ...] = ("expression", "story", "comparison")
HELD_OUT_SHARE = 20
"""One prompt in this many is held out."""
_NAMES = (
    "Ada", "Ben", "Cara", "Dan", "Eve", "Finn", "Gus", "Hana", "Ivan", "Jo",
    "Kim", "Leo", "Mia", "Ned", "Olga", "Pia", "Quin", "Rosa", "Sam", "Tia",
    "Uma", "Vic", "Wes", "Zoe",
)  # fmt: skip
_ITEMS = ("apples", "books", "cards", "coins", "cups", "pens", "shells", "stamps")
_GAINS = ("buys {n} more.", "finds {n} more.", "is given {n} more.")
_LOSSES = ("loses {n}.", "sells {n}.", "gives away {n}.")

_Words = tuple[str, tuple[str, ...], int]
"""The prompt, the worked lines, and the answer of a word problem."""
MAX_LEAF = 99
MAX_SMALL_FACTOR = 9
_PRECEDENCE = {"+": 1, "-": 1, "*": 2}


@dataclass(frozen=True, slots=True)
class Expression:
    """A number (no `operator`), or two expressions joined by one of ``+ - *``."""

    value: int
    operator: str = ""
    left: "Expression | None" = None
    right: "Expression | None" = None

    def __str__(self) -> str:
        if self.left is None or self.right is None:
            return str(self.value)
        mine = _PRECEDENCE[self.operator]
        # Operators of one precedence associate to the left, so only a right child needs brackets then.
        left = _bracketed(self.left, self.left.precedence < mine)
        right = _bracketed(self.right, self.right.precedence <= mine)
        return f"{left} {self.operator} {right}"

    @property
    def precedence(self) -> int:
        """3 for a number, 2 for a product, 1 for a sum or difference."""
        return _PRECEDENCE.get(self.operator, 3)

    def steps(self) -> tuple[str, ...]:
        """The worked solution, one operation a line. Operands come before the operation that needs them."""
        if self.left is None or self.right is None:
            return ()
        return (*self.left.steps(), *self.right.steps(), step(self.left.value, self.operator, self.right.value))


def apply(left: int, operator: str, right: int) -> int:
    """The value of `left operator right`."""
    if operator == "+":
        return left + right
    return left - right if operator == "-" else left * right


def step(left: int, operator: str, right: int) -> str:
    """A worked line, such as ``3 * 38 = 114``."""
    return f"{left} {operator} {right} = {apply(left, operator, right)}"


def random_expression(rng: Random, num_operations: int, max_value: int) -> Expression:
    """An expression of `num_operations` whose every value lies in 0..`max_value`.

    One factor of a product is always in 2..9. A sum or product that would grow too large becomes a difference.
    """
    if num_operations == 0:
        return Expression(rng.randint(1, MAX_LEAF))
    operator = rng.choice("+-*")
    if operator == "*":
        small = Expression(rng.randint(2, MAX_SMALL_FACTOR))
        other = random_expression(rng, num_operations - 1, max_value)
        left, right = (small, other) if rng.random() < 0.5 else (other, small)
    else:
        num_left = rng.randrange(num_operations)
        left = random_expression(rng, num_left, max_value)
        right = random_expression(rng, num_operations - 1 - num_left, max_value)
    if operator != "-" and apply(left.value, operator, right.value) > max_value:
        operator = "-"
    if operator == "-" and left.value < right.value:
        left, right = right, left
    return Expression(apply(left.value, operator, right.value), operator, left, right)


def _bracketed(expression: Expression, brackets: bool) -> str:
    return f"({expression})" if brackets else str(expression)


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
    words = _random_story if kind == "story" else _random_comparison
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


def _random_story(rng: Random, num_operations: int, max_value: int) -> _Words:
    """The count of one person, which changes `num_operations` times. Every line starts from the last result."""
    name, item = rng.choice(_NAMES), rng.choice(_ITEMS)
    count = rng.randint(1, MAX_LEAF)
    sentences, steps = [f"{name} has {count} {item}."], []
    for _ in range(num_operations):
        operator, number = _change(rng, count, max_value)
        sentences.append(_event(rng, name, operator, number))
        steps.append(step(count, operator, number))
        count = apply(count, operator, number)
    sentences.append(f"How many {item} does {name} have now?")
    return " ".join(sentences), tuple(steps), count


def _random_comparison(rng: Random, num_operations: int, max_value: int) -> _Words:
    """The counts of several people, each relative to somebody named before; the question is about the last one.

    A line names the person whose count it uses, and then inserts the number: ``Wes: Uma * 7 = 5 * 7 = 35``.
    """
    names, item = rng.sample(_NAMES, num_operations + 1), rng.choice(_ITEMS)
    counts = {names[0]: rng.randint(1, MAX_LEAF)}
    sentences, steps = [f"{names[0]} has {counts[names[0]]} {item}."], []
    for position, name in enumerate(names[1:], start=1):
        # The person named last is the usual reference. The final answer must depend on the sentence before it.
        previous = position == num_operations or rng.random() < 0.6
        other = names[position - 1] if previous else rng.choice(names[:position])
        operator, number = _change(rng, counts[other], max_value)
        sentences.append(_comparison(name, operator, number, other))
        steps.append(f"{name}: {other} {operator} {number} = {step(counts[other], operator, number)}")
        counts[name] = apply(counts[other], operator, number)
    sentences.append(f"How many {item} does {names[-1]} have?")
    return " ".join(sentences), tuple(steps), counts[names[-1]]


def _change(rng: Random, count: int, max_value: int) -> tuple[str, int]:
    """An operator and a number that keep the count in 0..`max_value`."""
    moves = [
        ("+", 1, min(MAX_LEAF, max_value - count)),
        ("-", 1, min(MAX_LEAF, count)),
        ("*", 2, min(MAX_SMALL_FACTOR, max_value // count if count else 0)),
    ]
    operator, low, high = rng.choice([move for move in moves if move[1] <= move[2]])
    return operator, rng.randint(low, high)


def _event(rng: Random, name: str, operator: str, number: int) -> str:
    if operator == "*":
        return f"Then {name} has {number} times as many."
    templates = _GAINS if operator == "+" else _LOSSES
    return f"{name} {rng.choice(templates).format(n=number)}"


def _comparison(name: str, operator: str, number: int, other: str) -> str:
    relation = {"+": "more than", "-": "fewer than", "*": "times as many as"}[operator]
    return f"{name} has {number} {relation} {other}."
