"""The jobs that one incarnation holds, and the room for more."""

from __future__ import annotations

import threading
from collections.abc import Iterable

from ponder.jobs.claim import ClaimedJob


class WorkerCapacity:
    """Shared by the intake, which adds jobs, and the heartbeat, which removes them, each from its own thread.

    Room is what the engine reported last, less what was handed over since that report was requested.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._jobs: dict[int, ClaimedJob] = {}
        self._room_tokens = 0
        self._admitted_tokens = 0
        self._reported_tokens = 0
        self._alone = False
        self._admitting = False
        self._closed = False

    def admit(self, admitting: bool) -> None:
        """Sets whether new work is wanted at the moment; while it is not, `wait_for_room` waits."""
        with self._changed:
            self._admitting = admitting
            self._changed.notify_all()

    def close(self) -> None:
        """Ends the taking of new work for good: `wait_for_room` returns False at once."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    @property
    def is_closed(self) -> bool:
        with self._changed:
            return self._closed

    def wait_until_closed(self, timeout_s: float) -> bool:
        """Sleeps, but not past `close`. Returns whether it was closed."""
        with self._changed:
            return self._changed.wait_for(lambda: self._closed, timeout_s)

    def wait_for_room(self, tokens: int, timeout_s: float) -> bool:
        """Returns whether so many estimated tokens fit in time. Any number fits if nothing is held."""
        with self._changed:
            self._changed.wait_for(lambda: self._closed or self._fits(tokens), timeout_s)
            return not self._closed and self._fits(tokens)

    def wait_until_empty(self, timeout_s: float) -> bool:
        """Returns whether, in time, nothing is held and new work is wanted."""
        with self._changed:
            self._changed.wait_for(lambda: self._closed or self._is_empty, timeout_s)
            return not self._closed and self._is_empty

    def add(self, jobs: Iterable[ClaimedJob], estimated_tokens: int, *, alone: bool = False) -> None:
        """Holds these jobs; if `alone`, nothing else fits until they are removed."""
        with self._changed:
            self._alone = alone
            self._jobs.update((job.job_id, job) for job in jobs)
            self._admitted_tokens += estimated_tokens

    def remove(self, job_ids: Iterable[int]) -> None:
        with self._changed:
            for job_id in job_ids:
                self._jobs.pop(job_id, None)
            self._changed.notify_all()

    def get(self, job_id: int) -> ClaimedJob | None:
        with self._changed:
            return self._jobs.get(job_id)

    @property
    def job_ids(self) -> list[int]:
        with self._changed:
            return list(self._jobs)

    @property
    def admitted_tokens(self) -> int:
        """The estimated tokens of every shard added so far; `report` wants its value as of the request."""
        with self._changed:
            return self._admitted_tokens

    def report(self, room_tokens: int, admitted_tokens: int) -> None:
        """Takes the engine's room from a report, requested when `admitted_tokens` had this value."""
        with self._changed:
            self._room_tokens = room_tokens
            self._reported_tokens = admitted_tokens
            self._changed.notify_all()

    @property
    def room_tokens(self) -> int:
        with self._changed:
            return max(0, self._room())

    def _fits(self, tokens: int) -> bool:
        return self._is_empty or (self._admitting and not self._alone and self._room() >= tokens)

    @property
    def _is_empty(self) -> bool:
        return self._admitting and not self._jobs

    def _room(self) -> int:
        return self._room_tokens - (self._admitted_tokens - self._reported_tokens)
