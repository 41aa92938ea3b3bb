"""The choice among candidates."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from ponder_worker.search.ranking import Select, rank
from ponder_worker.search.tree.candidate import Candidate
from ponder_worker.search.tree.node import Node

_ORACLE = Path(__file__).parents[4] / "shared/data/oracles/qwen_eval_rm_maj_math_cot_100.jsonl"


def candidate(answer: str | None, score: float | None = None, *, is_complete: bool = True, place: int = 0) -> Candidate:
    return Candidate(Node(place, None, place, 0, 0, 0), answer or "", answer, is_complete, score)


def chosen(by: Select, *candidates: Candidate) -> Candidate:
    return rank(candidates, by)[0]


def test_best_takes_the_highest_score_and_the_first_of_a_tie() -> None:
    first, second = candidate("1", 0.5), candidate("2", 0.5)
    assert chosen("best", candidate("0", 0.1), first, second) is first


def test_majority_counts_answers_that_are_written_differently_as_one() -> None:
    assert chosen("majority", candidate("7"), candidate("1,000"), candidate("1000.0")).answer == "1,000"


def test_majority_takes_the_first_answer_of_a_tie() -> None:
    assert chosen("majority", *map(candidate, "2121")).answer == "2"


def test_weighted_sums_the_probabilities_of_an_answer() -> None:
    options = candidate("1", math.log(0.9)), candidate("2", math.log(0.5)), candidate("2", math.log(0.5))
    assert chosen("weighted", *options, candidate("3", -1000.0)).answer == "2"


def test_weighted_compares_texts_so_unlikely_that_their_probabilities_are_zero_in_floating_point() -> None:
    options = candidate("1", -900.0), candidate("2", -900.5), candidate("2", -900.5)
    assert chosen("weighted", *options).answer == "2"


def test_weighted_without_any_score_is_the_majority() -> None:
    assert chosen("weighted", *map(candidate, "122")).answer == "2"
    assert chosen("weighted", candidate("1", -math.inf), candidate("2", -math.inf), candidate("2")).answer == "2"


def test_a_text_without_an_answer_never_wins_a_vote() -> None:
    assert chosen("majority", candidate(None), candidate(None), candidate("3")).answer == "3"


def test_a_text_that_was_cut_off_wins_only_if_there_is_no_whole_one() -> None:
    cut = candidate("1", 9.0, is_complete=False)
    assert chosen("best", cut, candidate("2", -9.0)).answer == "2"
    assert chosen("best", cut) is cut


@pytest.mark.skipif(not _ORACLE.is_file(), reason=f"needs the public data at {_ORACLE.name} beside the project")
def test_published_selection_scores_are_reproduced() -> None:
    """QwenLM/Qwen2.5-Math publishes maj@8 = 93.0 and best-reward@8 = 94.0 for this file."""
    rows = [json.loads(line) for line in _ORACLE.read_text().splitlines()]

    def accuracy(by: Select) -> float:
        right = 0
        for row in rows:
            candidates = [
                candidate(answer or None, score[0], place=place)
                for place, (answer, score) in enumerate(zip(row["pred"], row["pred_score"], strict=True))
            ]
            right += row["score"][chosen(by, *candidates).node.index]
        return 100 * right / len(rows)

    assert accuracy("best") == 94.0
    assert accuracy("majority") == 93.0
