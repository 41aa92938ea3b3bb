"""Drives the jobs of a cell through the API: submits each when it arrives, and waits until all have settled."""

from __future__ import annotations

import json
import secrets
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

from ponder.client import Client
from ponder.errors import Conflict, NotFound, PonderError
from ponder.wire import Json

_POLL_S = 0.25
_POLLED = 16
"""Open batches that one round asks about, the oldest first."""
_WINDOW = "24h"
_ENDED = ("completed", "failed", "expired", "cancelled")


class BatchRefused(PonderError):
    """A batch that failed as a whole, or refused some of its lines; the message says why."""


@dataclass(slots=True)
class Driver:
    """The batches of one cell. `name` is their title in lists; `on_settled` is told how many jobs have settled."""

    client: Client
    name: str
    options: Json
    on_settled: Callable[[int], None]
    clock: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep
    batch_ids: list[str] = field(default_factory=list)
    _open: dict[str, int] = field(default_factory=dict)
    """Jobs that have not settled, by batch."""

    def run(self, lines: Sequence[Json], times: Sequence[float], most_in_flight: int | None) -> Sequence[str]:
        """Submits each line at its time in seconds, or later while `most_in_flight` jobs are. Returns the batches.

        Lines that are due together are one batch. Raises BatchRefused. Whatever ends it early, its batches are
        cancelled.
        """
        waiting = deque(zip(times, lines, strict=True))
        begun_at = self.clock()
        with self._cancelled_on_error():
            while waiting or self._open:
                room = len(lines) if most_in_flight is None else most_in_flight - sum(self._open.values())
                now = self.clock() - begun_at
                due: list[Json] = []
                while waiting and waiting[0][0] <= now and len(due) < room:
                    due.append(waiting.popleft()[1])
                if due:
                    self._submit(due)
                self._look()
                self.on_settled(len(lines) - len(waiting) - sum(self._open.values()))
                next_s = waiting[0][0] - (self.clock() - begun_at) if waiting else _POLL_S
                self.sleep(min(_POLL_S, max(0.0, next_s)) if len(due) < room else _POLL_S)
        return self.batch_ids

    def _submit(self, due: Sequence[Json]) -> None:
        written = b"".join(json.dumps(line).encode() + b"\n" for line in due)
        file_id = self.client.upload(lambda: [written], "bench.jsonl")["id"]
        batch = self.client.submit(
            file_id,
            completion_window=_WINDOW,
            metadata={"file": self.name},
            options=self.options,
            idempotency_key=secrets.token_hex(16),
        )
        self.batch_ids.append(batch["id"])
        self._open[batch["id"]] = len(due)

    def _look(self) -> None:
        for batch_id in list(self._open)[:_POLLED]:
            batch = self.client.batch(batch_id)
            counts = batch["request_counts"]
            if batch["status"] in _ENDED:
                self._check(batch)
                del self._open[batch_id]
            elif counts["total"]:
                self._open[batch_id] = counts["total"] - counts["completed"] - counts["failed"]

    def _check(self, batch: Json) -> None:
        """Raises BatchRefused if the batch, or a line of it, was not run."""
        errors = (batch["errors"] or {}).get("data") or []
        if errors:
            raise BatchRefused(f"{batch['id']} was refused: {errors[0]['message']}")
        num_rejected = batch["ponder"]["counts"]["rejected"]
        if num_rejected:
            reason = next(self._refusals(batch), "")
            raise BatchRefused(f"{batch['id']} refused {num_rejected} of its lines, such as: {reason}")

    def _refusals(self, batch: Json) -> Iterator[str]:
        with self.client.download(batch["error_file_id"]) as pieces:
            for line in b"".join(pieces).splitlines():
                yield str((json.loads(line).get("error") or {}).get("message"))

    @contextmanager
    def _cancelled_on_error(self) -> Iterator[None]:
        try:
            yield
        except BaseException:
            for batch_id in self._open:
                with suppress(NotFound, Conflict, PonderError):
                    self.client.cancel(batch_id)
            raise
