"""Answers as people have reported them. A new report is one line in the file of its kind.

Each line: `verifier`, a name or a spec; `text`, all that the model wrote; `reference`; the verdict to `expect`.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from ponder_worker.engine_process.job_request import answer_of
from ponder_worker.verify import Case, examine

KINDS = sorted((Path(__file__).parent / "answers").glob("*.jsonl"))
SHARED = Path(__file__).parents[3] / "shared/data/reports/answers.jsonl"


def wrong(file: Path) -> list[str]:
    """The lines that are judged otherwise than they say, as a job's answer is: extracted, then examined."""
    found = []
    for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), start=1):
        row: dict[str, Any] = json.loads(line)
        verifier = row["verifier"] if isinstance(row["verifier"], dict) else {"name": row["verifier"]}
        answer = answer_of({"verifier": verifier})(row["text"])
        judgement = examine(Case(verifier, answer, row["reference"]))
        if judgement.verdict != row["expect"]:
            found.append(f"line {number}: {line} was read as {answer!r} and {judgement.verdict}: {judgement.reason}")
    return found


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.stem)
def test_answers_of_each_kind_are_judged_right(kind: Path) -> None:
    assert wrong(kind) == []


@pytest.mark.skipif(not SHARED.is_file(), reason=f"needs the public data reports/{SHARED.name} beside the project")
def test_the_published_reports_are_judged_right() -> None:
    assert wrong(SHARED) == []
