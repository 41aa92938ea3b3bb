from __future__ import annotations

import io
from typing import Any

import pytest
from rich.console import Console

from ponder.cli.commands.show import print_job
from ponder.cli.tree import Drawing
from ponder.domain.tree.tree_shape import decision


def drawn(document: dict[str, Any]) -> str:
    output = io.StringIO()
    Console(file=output, width=100, markup=False).print(Drawing.of(document).draw("beam_search"))
    return output.getvalue()


def node(parent: int, ordinal: int, text: str, score: float | None, state: str = "finished") -> dict[str, Any]:
    return {"parent": parent, "ordinal": ordinal, "text": text, "score": score, "state": state}


def test_the_way_to_the_chosen_answer_is_marked_and_what_was_pruned_too() -> None:
    nodes = [
        {"text": "prompt"},
        node(0, 0, "3 * 4 = 12\n", -0.001),
        node(0, 1, "3 * 4 = 13\n", -4.2, "pruned"),
        node(1, 0, "Answer: 12", -0.5),
    ]
    document = {"nodes": nodes, "candidates": [{"node": 3, "answer": "12", "score": -0.5}], "chosen": 0}
    assert drawn(document).splitlines() == [
        "beam_search",
        "├── ✓ +0.00  3 * 4 = 12",
        "│   └── ✓ -0.50  Answer: 12  = 12",
        "└── ✗ -4.20  3 * 4 = 13",
    ]


def test_leaves_that_say_the_same_are_one_line_with_their_number() -> None:
    twins = [node(0, number, "2 * 5 = 10\n", -0.2, "pruned") for number in (0, 2, 3)]
    nodes = [
        {"text": ""},
        twins[0],
        node(0, 1, "2 * 5 = 10\n", -0.2),
        twins[1],
        node(2, 0, "Answer: 10", 0.0),
        twins[2],
    ]
    document = {"nodes": nodes, "candidates": [{"node": 4, "answer": "10", "score": 0.0}], "chosen": 0}
    assert drawn(document).splitlines()[1:] == [
        "└── ✓ -0.20  2 * 5 = 10  ×4",
        "    └── ✓ +0.00  Answer: 10  = 10",
    ]


def test_a_wide_tree_shows_its_best_nodes_and_counts_the_others() -> None:
    nodes = [{"text": ""}, *(node(0, number, f"Answer: {number}", -float(number)) for number in range(40))]
    document = {"nodes": nodes, "candidates": [{"node": 40, "answer": "39", "score": -39.0}], "chosen": 0}
    text = drawn(document)
    assert "… 28 more" in text
    assert "✓ -39.00  Answer: 39" in text
    assert "Answer: 10" in text
    assert "Answer: 11" not in text


def test_markup_in_a_models_text_is_text() -> None:
    document = {"nodes": [{"text": ""}, node(0, 0, "[red]x[/red] [/]", None)], "candidates": [], "chosen": None}
    assert "[red]x[/red] [/]" in drawn(document)


def test_a_tree_that_is_still_empty_can_be_drawn() -> None:
    assert drawn({}) == "beam_search\n"


def test_many_lines_become_one_of_bounded_length() -> None:
    text = drawn({"nodes": [{"text": ""}, node(0, 0, "step\n" * 100, None)], "candidates": [], "chosen": None})
    assert text.count("\n") == 2
    assert "step ⏎ step" in text


def test_nodes_that_were_forced_stopped_verified_or_begun_early_are_marked() -> None:
    nodes = [
        {"text": ""},
        node(0, 0, "No.", None) | {"stop": "stop", "passed": False, "feedback": "no JSON:\nline 1"},
        node(1, 0, "Try again.", None) | {"stop": "forced", "forced": [[0, 4]]},
        node(2, 0, "<think>…Wait…</think>{}", None) | {"stop": "stop", "forced": [[3, 1], [9, 5]], "passed": True},
        node(0, 1, "4", None, "cancelled") | {"stop": "settled"},
        node(0, 2, "5", None, "cancelled") | {"stop": "deadline", "speculative": True},
    ]
    document = {"nodes": nodes, "candidates": [{"node": 3, "answer": "{}", "score": None}], "chosen": 0}
    assert drawn(document).splitlines()[1:] == [
        "├── ✓ No.  failed: no JSON: ⏎ line 1",
        "│   └── ✓ Try again.  (the user's turn)",
        "│       └── ✓ <think>…Wait…</think>{}  (forced ×2)  = {}  passed",
        "├── ✗ 4  (stopped: it was settled)",
        "└── ✗ 5  (stopped: deadline)  (speculative)",
    ]


def test_a_stage_that_ended_after_its_first_tokens_says_so() -> None:
    assert decision({"route": {"skipped": True, "chance": 0.02}}) == "skipped: too seldom accepted (2%)"
    early = {"skipped": True, "chance": 0.02, "confidence": 0.412}
    assert decision({"route": early}) == "ended after its first tokens, confidence 0.41: too seldom accepted (2%)"
    assert decision({"route": early | {"skipped": False}}) == ""


def test_another_model_that_judges_is_shown_behind_what_it_judges(capsys: pytest.CaptureFixture[str]) -> None:
    told = {"accept": {"by": "judge", "accepted": True, "votes": [2, 1, 0]}}
    made = {"nodes": [{"text": ""}, node(0, 0, "4", None)], "candidates": [{"node": 1, "answer": "4"}], "chosen": 0}
    question = {"parent": 0, "ordinal": 0, "text": "", "ids": [], "tokens": 0, "state": "finished", "prompt": True}
    asked = {"nodes": [{"text": ""}, question, node(1, 0, "Verdict: correct", None)], "candidates": [], "chosen": None}
    stages = [
        made | {"model": "small", "fingerprint": "f0", "stage": 0, "task": "solve", "strategy": "direct"},
        asked | {"model": "large", "fingerprint": "f1", "stage": 0, "task": "accept", "decisions": told},
    ]
    shown = [
        {"model": stage["model"], "fingerprint": stage["fingerprint"], "stage": 0, "task": stage["task"]}
        | {"state": "ended", "has_answered": number == 0, "decisions": stage.get("decisions", {})}
        for number, stage in enumerate(stages)
    ]
    print_job(
        {"id": "job_1", "custom_id": "a", "line": 1, "batch_id": "batch_b", "state": "completed", "model": "small"}
        | {"strategy": "cascade", "stages": shown, "tree": {"stages": stages, "answered_by": 0}}
    )
    text = " ".join(capsys.readouterr().out.split())
    assert "stage 0 small (f0), gave the answer" in text
    assert "judged by large (f1), accepted by judge" in text
    assert "stage 0: judged by large, accepted by judge" in text
    assert "Verdict: correct" in text


def test_what_a_verifier_that_is_a_model_said_is_told_with_the_votes() -> None:
    assert decision({"verdict": {"passed": True, "votes": [2, 1, 1]}}) == "votes: 2 correct, 1 wrong"
    assert decision({"verdict": {"passed": None, "votes": [0, 0, 1]}}) == "votes: 0 correct, 0 wrong"


def test_a_cascade_is_drawn_stage_by_stage_with_what_was_decided(capsys: pytest.CaptureFixture[str]) -> None:
    weak = {"by": "agreement", "accepted": False, "agreement": 0.5, "threshold": 0.75}
    sure = {"by": "reward", "accepted": True, "probability": 0.9, "chance": 0.7, "threshold": 0.6}
    made = {"nodes": [{"text": ""}, node(0, 0, "4", None)], "candidates": [{"node": 1, "answer": "4"}], "chosen": 0}
    stages = [
        {"model": "tiny", "fingerprint": "f0", "strategy": "direct", "nodes": [{"text": ""}], "chosen": None}
        | {"decisions": {"route": {"skipped": True, "chance": 0.02}}},
        made
        | {"model": "small", "fingerprint": "f1", "strategy": "self_consistency", "decisions": {"accept": weak}}
        | {"stage": 1},
        made
        | {"model": "large", "fingerprint": "f2", "strategy": "best_of_n", "stage": 2}
        | {"decisions": {"accept": sure | {"calibrated_on": "batch_a"}}},
    ]
    states = ["ended", "ended", "ended", "not_needed"]
    shown = [
        {"model": stage["model"], "fingerprint": stage["fingerprint"], "state": state, "has_answered": number == 2}
        | {"decisions": stage["decisions"], "stage": number, "task": "solve"}
        for number, (stage, state) in enumerate(zip([*stages, stages[0]], states, strict=True))
    ]
    shown[3] |= {"decisions": {}}
    print_job(
        {"id": "job_1", "custom_id": "a", "line": 1, "batch_id": "batch_b", "state": "completed", "model": "tiny"}
        | {"strategy": "cascade", "stages": shown, "tree": {"stages": stages, "answered_by": 2}}
    )
    lines = capsys.readouterr().out.splitlines()
    text = " ".join(" ".join(lines).split())
    assert "stage 0 tiny (f0), skipped: too seldom accepted (2%)" in text
    assert "stage 1 small (f1), not accepted by agreement 0.50 (needed: 0.75)" in text
    calibrated = (
        "accepted by probability 0.90, which is right with a chance of 0.70 (needed: 0.6), calibrated on batch_a"
    )
    assert f"stage 2 large (f2), {calibrated}, gave the answer" in text
    assert "stage 3 tiny (f0), was not needed" in text
    drawn_stages = [line for line in lines if line.startswith("stage")]
    assert drawn_stages[1] == "stage 1: self_consistency on small, not accepted by agreement 0.50 (needed: 0.75)"
    assert [line.strip("└─ ").partition(" ")[0] for line in lines if " = 4" in line or "= 4" in line] == ["4", "✓"]


def test_a_judges_replies_stand_below_its_question() -> None:
    nodes = [
        {"text": "prompt"},
        node(0, 0, "4", None),
        node(0, 1, "", None) | {"prompt": True},
        node(2, 0, "Yes", None),
    ]
    document = {"nodes": nodes, "candidates": [{"node": 1, "answer": "4", "score": None}], "chosen": 0}
    assert drawn(document).splitlines()[2:] == ["└──     (a judge is asked)", "    └──   Yes"]
