"""Arithmetic expressions, with a worked solution of one operation a line."""

from dataclasses import dataclass
from random import Random

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
