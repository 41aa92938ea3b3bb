"""The templated problems: right, within their level, and never both trained on and held out."""

import subprocess
import sys
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ponder_worker.demo.problems import (
    HELD_OUT_SHARE,
    KINDS,
    LEVELS,
    Kind,
    Problem,
    held_out_problems,
    is_held_out,
    random_problem,
    training_problem,
)

levels = st.integers(1, 5)
kinds = st.sampled_from(KINDS)
seeds = st.integers(0, 2**32)


@given(seed=seeds, level=levels, kind=kinds)
def test_no_held_out_prompt_is_ever_in_the_training_split(seed: int, level: int, kind: Kind) -> None:
    assert not is_held_out(training_problem(Random(seed), level, kind).prompt)


def test_every_problem_that_is_handed_out_for_measuring_is_held_out_and_different() -> None:
    problems = held_out_problems()
    assert all(is_held_out(problem.prompt) for problem in problems)
    assert len({problem.prompt for problem in problems}) == len(problems) == 500


def test_each_level_has_a_hundred_held_out_problems_unless_told_otherwise() -> None:
    assert [problem.level for problem in held_out_problems()] == [n for n in range(1, 6) for _ in range(100)]


def test_the_hard_levels_hold_two_expressions_for_every_comparison_unless_told_otherwise() -> None:
    assert [p.kind for p in held_out_problems(3) if p.level == 5] == ["expression", "expression", "comparison"]
    assert {p.kind for p in held_out_problems(3, kinds=("story",))} == {"story"}


def test_held_out_problems_are_the_same_every_time_and_a_longer_list_begins_with_the_shorter() -> None:
    assert held_out_problems(20) == held_out_problems(20)
    assert held_out_problems(40)[:20] == held_out_problems(20)[:20]
    assert held_out_problems(20, seed=1) != held_out_problems(20, seed=2)


def test_the_split_is_the_same_on_every_machine() -> None:
    prompts = [f"Compute {left} + 1." for left in range(200)]
    assert [prompt for prompt in prompts if is_held_out(prompt)][:3] == [
        "Compute 43 + 1.",
        "Compute 56 + 1.",
        "Compute 75 + 1.",
    ]


def test_about_one_prompt_in_twenty_is_held_out() -> None:
    rng = Random(0)
    share = sum(is_held_out(random_problem(rng, 5, "expression").prompt) for _ in range(4000)) / 4000
    assert share == pytest.approx(1 / HELD_OUT_SHARE, abs=0.02)


@given(seed=seeds, level=levels, kind=kinds)
def test_every_worked_step_is_right_and_within_the_level(seed: int, level: int, kind: Kind) -> None:
    problem, spec = random_problem(Random(seed), level, kind), LEVELS[level - 1]
    assert spec.min_operations <= len(problem.steps) <= spec.max_operations
    for step in problem.steps:
        calculation, result = step.split(" = ")[-2:]
        assert value_of(calculation) == int(result)
        assert 0 <= int(result) <= spec.max_value
    assert int(problem.steps[-1].rpartition("= ")[2]) == problem.answer


@given(seed=seeds, level=levels)
def test_an_expression_has_the_value_that_its_solution_finds(seed: int, level: int) -> None:
    problem = random_problem(Random(seed), level, "expression")
    assert value_of(problem.prompt.removeprefix("Compute ").removesuffix(".")) == problem.answer


@given(seed=seeds, level=levels, kind=kinds)
def test_a_prompt_is_one_line_and_a_solution_ends_with_its_answer(seed: int, level: int, kind: Kind) -> None:
    problem = random_problem(Random(seed), level, kind)
    assert "\n" not in problem.prompt
    assert problem.solution.splitlines() == [*problem.steps, f"Answer: {problem.answer}"]


@given(seed=seeds, level=levels)
def test_a_comparison_only_speaks_of_people_who_were_introduced(seed: int, level: int) -> None:
    problem = random_problem(Random(seed), level, "comparison")
    known: set[str] = set()
    for sentence in problem.prompt.split(". ")[:-1]:
        name, *rest = sentence.split()
        if known:
            assert rest[-1] in known
        known.add(name)


def test_a_comparison_can_be_read_and_worked() -> None:
    problem = Problem(
        prompt="Sam has 16 cups. Cara has 15 fewer than Sam. How many cups does Cara have?",
        steps=("Cara: Sam - 15 = 16 - 15 = 1",),
        answer=1,
        level=1,
        kind="comparison",
    )
    assert problem.solution == "Cara: Sam - 15 = 16 - 15 = 1\nAnswer: 1"


def test_problems_are_made_without_torch() -> None:
    program = "import sys, ponder_worker.demo.problems; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)


def value_of(expression: str) -> int:
    """Python's own arithmetic, on text that holds only numbers, brackets and operators."""
    assert set(expression) <= set("0123456789+-*() ")
    return int(eval(expression))
