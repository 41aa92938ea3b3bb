"""English word problems: one person's count over time, or several people's counts compared."""

from random import Random

from ponder_worker.demo.expression import MAX_LEAF, MAX_SMALL_FACTOR, apply, step

NAMES = (
    "Ada", "Ben", "Cara", "Dan", "Eve", "Finn", "Gus", "Hana", "Ivan", "Jo",
    "Kim", "Leo", "Mia", "Ned", "Olga", "Pia", "Quin", "Rosa", "Sam", "Tia",
    "Uma", "Vic", "Wes", "Zoe",
)  # fmt: skip
ITEMS = ("apples", "books", "cards", "coins", "cups", "pens", "shells", "stamps")
_GAINS = ("buys {n} more.", "finds {n} more.", "is given {n} more.")
_LOSSES = ("loses {n}.", "sells {n}.", "gives away {n}.")

Words = tuple[str, tuple[str, ...], int]
"""The prompt, the worked lines, and the answer of a problem."""


def random_story(rng: Random, num_operations: int, max_value: int) -> Words:
    """The count of one person, which changes `num_operations` times. Every line starts from the last result."""
    name, item = rng.choice(NAMES), rng.choice(ITEMS)
    count = rng.randint(1, MAX_LEAF)
    sentences, steps = [f"{name} has {count} {item}."], []
    for _ in range(num_operations):
        operator, number = _change(rng, count, max_value)
        sentences.append(_event(rng, name, operator, number))
        steps.append(step(count, operator, number))
        count = apply(count, operator, number)
    sentences.append(f"How many {item} does {name} have now?")
    return " ".join(sentences), tuple(steps), count


def random_comparison(rng: Random, num_operations: int, max_value: int) -> Words:
    """The counts of several people, each relative to somebody named before; the question is about the last one.

    A line names the person whose count it uses, and then inserts the number: ``Wes: Uma * 7 = 5 * 7 = 35``.
    """
    names, item = rng.sample(NAMES, num_operations + 1), rng.choice(ITEMS)
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
