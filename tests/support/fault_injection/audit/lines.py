"""Every line that was handed in: settled once, in the order of the input, failed only with a reason."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from fault_injection.audit.evidence import Evidence
from fault_injection.workload import Submission
from sqlalchemy import Connection, Row, text

DEATHS_TO_FAIL = 3

_JOBS = text("""
    SELECT jobs.id, batch_id, line, custom_id, jobs.state, verdict, answer, error ->> 'code' AS code,
           results.job_id IS NOT NULL AS has_result, usage.job_id IS NOT NULL AS has_usage,
           EXISTS (SELECT FROM tree_deltas WHERE job_id = jobs.id) AS has_deltas
    FROM jobs LEFT JOIN results ON results.job_id = jobs.id LEFT JOIN usage ON usage.job_id = jobs.id
    ORDER BY batch_id, line
""")
_MOVES = text("SELECT job_id, count(*) AS num FROM trail.moves GROUP BY job_id")
_ATTEMPTS = text("""
    SELECT job_id, outcome, incarnation_id, pid, end_reason, attempts.started_at, attempts.ended_at
    FROM attempts JOIN incarnations ON incarnations.id = incarnation_id ORDER BY attempts.id
""")
_BATCHES = text("SELECT id FROM batches")


@dataclass(frozen=True, slots=True)
class History:
    """A job's row, how often its state was written, and its attempts in order."""

    job: Row[Any]
    num_moves: int
    attempts: tuple[Row[Any], ...]

    @property
    def name(self) -> str:
        return f"line {self.job.custom_id} (job {self.job.id})"


def histories(connection: Connection) -> dict[str, list[History]]:
    """By batch, in the order of the lines."""
    moves = {row.job_id: row.num for row in connection.execute(_MOVES)}
    attempts: defaultdict[int, list[Row[Any]]] = defaultdict(list)
    for row in connection.execute(_ATTEMPTS):
        attempts[row.job_id].append(row)
    found: defaultdict[str, list[History]] = defaultdict(list)
    for job in connection.execute(_JOBS):
        found[job.batch_id].append(History(job, moves.get(job.id, 0), tuple(attempts[job.id])))
    return found


def lost(histories: Mapping[str, list[History]], evidence: Evidence) -> Iterator[str]:
    """Handed in and confirmed, but not settled in full."""
    for submission in evidence.submissions:
        there = {history.job.custom_id: history for history in histories.get(submission.batch_id, ())}
        out = {line["custom_id"] for line in _files(submission, evidence)}
        for line in submission.lines:
            history = there.get(line.custom_id)
            if history is None:
                yield f"line {line.custom_id} has no job"
            elif history.job.state == "pending" or not history.job.has_result or not history.job.has_usage:
                yield f"{history.name} is {history.job.state}"
            elif line.custom_id not in out:
                yield f"{history.name} is in no file"


def doubled(connection: Connection, histories: Mapping[str, list[History]], evidence: Evidence) -> Iterator[str]:
    """Settled, charged or written out more than once, or never handed in."""
    known = {submission.batch_id for submission in evidence.submissions}
    yield from (f"batch {row.id} was never handed in" for row in connection.execute(_BATCHES) if row.id not in known)
    for history in (history for batch in histories.values() for history in batch):
        num_settled = sum(attempt.outcome == "settled" for attempt in history.attempts)
        if history.num_moves > 1:
            yield f"{history.name} changed its state {history.num_moves} times"
        if num_settled != (history.job.state == "completed"):
            yield f"{history.name} is {history.job.state}, and {num_settled} attempts settled it"
        if any(attempt.outcome is None for attempt in history.attempts):
            yield f"{history.name} is still held"
        if history.job.has_deltas:
            yield f"{history.name} is {history.job.state} and has deltas left"
    for submission in evidence.submissions:
        counts = Counter(line["custom_id"] for line in _files(submission, evidence))
        yield from (f"line {name} is in the files {num} times" for name, num in counts.items() if num > 1)


def out_of_order(histories: Mapping[str, list[History]], evidence: Evidence) -> Iterator[str]:
    """Jobs and files follow the input."""
    for submission in evidence.submissions:
        names = [line.custom_id for line in submission.lines]
        if [history.job.custom_id for history in histories.get(submission.batch_id, ())] != names:
            yield f"the jobs of {submission.batch_id} are not the lines that were handed in"
        for file in (evidence.outputs[submission.batch_id], evidence.errors[submission.batch_id]):
            written = [line["custom_id"] for line in file]
            if written != [name for name in names if name in written]:
                yield f"a file of {submission.batch_id} is in another order"


def wrongly_failed(histories: Mapping[str, list[History]], evidence: Evidence) -> Iterator[str]:
    """Only a job whose workers died three times, by what was done to them, may fail; and that job must."""
    for history in (history for batch in histories.values() for history in batch):
        lost = [attempt for attempt in history.attempts if attempt.outcome == "lost"]
        num_deaths = sum(bool(evidence.hits.get(attempt.pid)) for attempt in lost)
        if history.job.state == "failed" and history.job.code != "worker_lost":
            yield f"{history.name} failed: {history.job.code}"
        elif history.job.state == "failed" and num_deaths < DEATHS_TO_FAIL:
            ends = [f"{attempt.incarnation_id}: {attempt.end_reason}" for attempt in lost]
            yield f"{history.name} failed as worker_lost after {num_deaths} deaths; its losses: {', '.join(ends)}"
        elif history.job.state not in ("completed", "failed"):
            yield f"{history.name} is {history.job.state}"
        elif len(lost) > DEATHS_TO_FAIL or (len(lost) == DEATHS_TO_FAIL and history.job.state != "failed"):
            yield f"{history.name} is {history.job.state} after {len(lost)} losses"


def not_alone(histories: Mapping[str, list[History]]) -> Iterator[str]:
    """A job that was lost twice shares its worker with nobody."""
    by_incarnation: defaultdict[str, list[tuple[int, Row[Any]]]] = defaultdict(list)
    suspects: list[tuple[History, Row[Any]]] = []
    for history in (history for batch in histories.values() for history in batch):
        num_lost = 0
        for attempt in history.attempts:
            by_incarnation[attempt.incarnation_id].append((history.job.id, attempt))
            if num_lost >= DEATHS_TO_FAIL - 1:
                suspects.append((history, attempt))
            num_lost += attempt.outcome == "lost"
    for history, attempt in suspects:
        for job_id, other in by_incarnation[attempt.incarnation_id]:
            if job_id != history.job.id and other.started_at < attempt.ended_at and attempt.started_at < other.ended_at:
                yield f"{history.name}, lost twice, was held together with job {job_id}"


def _files(submission: Submission, evidence: Evidence) -> list[dict[str, Any]]:
    return evidence.outputs[submission.batch_id] + evidence.errors[submission.batch_id]
