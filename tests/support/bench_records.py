"""Records of jobs, made up."""

from __future__ import annotations

from typing import Any

from ponder.bench.job_record import Candidate, JobRecord


def record(problem: str = "p", seed: int = 0, *, passed: bool = True, **fields: Any) -> JobRecord:
    answers = fields.pop("answers", ())
    given = {
        "level": None,
        "verdict": "passed" if passed else "failed",
        "answer": "7",
        "submitted_at": 100.0,
        "first_token_at": 101.0,
        "first_visible_token_at": 101.5,
        "ended_at": 104.0,
        "settled_at": 105.0,
        "prompt_tokens": 10,
        "completion_tokens": 31,
        "thinking_tokens": 0,
        "direct_nanodollars": 1_000,
    }
    candidates = [Candidate(answer, score) for answer, score in answers]
    return JobRecord(problem=problem, seed=seed, candidates=candidates, **(given | fields))
