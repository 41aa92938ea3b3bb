"""Suites and the problems that they name."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ponder.bench.grid import cells, short_labels
from ponder.bench.problem_set import problem_of, read_problems
from ponder.bench.suite import DataSet, MultipleChoice, Suite, read_suite, shipped
from ponder.errors import InvalidInput


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    rows = [{"q": f"What is {n} + {n}?", "a": f"It is twice.\n#### {2 * n}", "w": 7, "level": n % 3} for n in range(9)]
    (tmp_path / "sums.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return tmp_path


@pytest.mark.parametrize("name", shipped())
def test_every_shipped_suite_can_be_read(name: str) -> None:
    suite, folder = read_suite(name)
    assert suite.name == name
    for data in suite.data:
        if (folder / data.path).exists():
            assert read_problems(data, folder, 5)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name = ", "cannot be read as TOML"),
        ('name = "x"', "data: is missing"),
        ('name = "x"\nmodel = "m"\n[[data]]\nname = "d"\npath = "p"\nprompt = "q"', "model: is not a known field"),
        ('name = "x"\nbudgets = [-1]\n[[data]]\nname = "d"\npath = "p"\nprompt = "q"', "budgets[0]: "),
        ('name = "x"\nstrategies = ["bets"]\n[[data]]\nname = "d"\npath = "p"\nprompt = "q"', "strategies[0]: "),
        (
            'name = "x"\narrivals = [{process = "gamma", rate_per_s = 1}]\n'
            '[[data]]\nname = "d"\npath = "p"\nprompt = "q"',
            "arrivals[0].gamma.cv: is missing",
        ),
    ],
)
def test_a_wrong_suite_is_refused_with_the_field(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "x.toml"
    file.write_text(text)
    with pytest.raises(InvalidInput) as refused:
        read_suite(str(file))
    assert message in refused.value.message


def test_a_suite_that_is_not_there_lists_the_shipped_ones() -> None:
    with pytest.raises(InvalidInput, match=r"there is no suite nothing: .*gsm8k"):
        read_suite("nothing")


def test_problems_are_taken_at_equal_distances_and_lines_name_problem_and_seed(folder: Path) -> None:
    data = DataSet(
        name="sums",
        path="sums.jsonl",
        prompt="{q} Think.",
        answer="a",
        level="level",
        problems=3,
        sampling={"temperature": 0.5},
    )
    problems = read_problems(data, folder, None)
    assert [problem.prompt for problem in problems] == [f"What is {n} + {n}? Think." for n in (0, 3, 6)]
    line = problems[1].line(data, "demo", 5)
    body = line["body"]
    assert (body["seed"], body["metadata"], body["temperature"]) == (5, {"level": "0"}, 0.5)
    assert problem_of(line["custom_id"]) == (problems[1].id, 5)


def test_multiple_choice_has_the_right_answer_under_its_letter(folder: Path) -> None:
    data = DataSet(
        name="sums", path="sums.jsonl", prompt="q", answer="a", multiple_choice=MultipleChoice(distractors=3)
    )
    problems = read_problems(data, folder, None)
    for number, problem in enumerate(problems):
        choices = dict(line.split(") ", 1) for line in problem.prompt.splitlines()[2:])
        assert list(choices) == ["A", "B", "C", "D"]
        assert len(set(choices.values())) == 4
        assert choices[problem.reference or ""] == str(2 * number)
    assert len({problem.reference for problem in problems}) > 1, "the right answer is not always the same letter"
    assert read_problems(data, folder, None) == problems, "the order is the same in every run"


def test_wrong_answers_are_written_like_the_right_one(tmp_path: Path) -> None:
    answers = ["12345678", "0.125", "1,234,567"]
    rows = [{"q": f"question {number}", "a": answer} for number, answer in enumerate(answers)]
    (tmp_path / "sums.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    data = DataSet(name="sums", path="sums.jsonl", prompt="q", answer="a", multiple_choice=MultipleChoice())
    for problem, answer in zip(read_problems(data, tmp_path, None), answers, strict=True):
        choices = [line.split(") ", 1)[1] for line in problem.prompt.splitlines()[2:]]
        assert len(set(choices)) == 4
        assert {("," in choice, "." in choice, "e" in choice) for choice in choices} == {
            ("," in answer, "." in answer, False)
        }


def test_a_row_without_a_named_field_is_refused_with_its_place(folder: Path) -> None:
    with pytest.raises(InvalidInput, match=r"sums\.jsonl, line 1: it has no field 'question'"):
        read_problems(DataSet(name="sums", path="sums.jsonl", prompt="question"), folder, None)


def test_every_combination_is_a_cell(folder: Path) -> None:
    data = DataSet(name="sums", path="sums.jsonl", prompt="q")
    suite = Suite(name="s", data=(data,), strategies=("direct", "best_of_n"), budgets=(0, 64), concurrency=(0, 4))
    labels = [cell.key.label for cell in cells(suite, "demo", None)]
    assert len(labels) == len(set(labels)) == 8
    assert labels[0] == "sums, demo, direct"
    keys = [cell.key for cell in cells(suite, "demo", None)]
    assert short_labels(keys)[keys[1]] == "direct, no budget, 4 in flight"
    assert short_labels(keys[:1])[keys[0]] == labels[0]
    assert labels[-1] == "sums, demo, best_of_n n=8, 64 tokens, 4 in flight"
