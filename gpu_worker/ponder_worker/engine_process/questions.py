"""The questions that searches ask their verifiers, which are in the parent process."""

from __future__ import annotations

from collections.abc import Callable
from itertools import count

from ponder_worker.protocol import Ask, Verdict

Answered = Callable[[Verdict], None]


class Questions:
    """Sends each question at once, and calls `done` when the answer comes, unless the job was dropped by then."""

    def __init__(self, send: Callable[[Ask], None]) -> None:
        self.num_answered = 0
        self._send = send
        self._numbers = count()
        self._open: dict[int, tuple[int, Answered]] = {}

    def ask(self, job_id: int, answer: str | None, done: Answered) -> None:
        """Asks whether this candidate's answer is right."""
        number = next(self._numbers)
        self._open[number] = (job_id, done)
        self._send(Ask(job_id, number, answer))

    def answer(self, verdict: Verdict) -> None:
        asked = self._open.pop(verdict.number, None)
        if asked is not None:
            self.num_answered += 1
            asked[1](verdict)

    @property
    def job_ids(self) -> set[int]:
        """The jobs that wait for an answer."""
        return {job_id for job_id, _ in self._open.values()}

    def drop(self, job_id: int) -> None:
        self._open = {number: asked for number, asked in self._open.items() if asked[0] != job_id}
