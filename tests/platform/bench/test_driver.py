"""How the jobs of a cell are submitted over time."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, cast

import pytest

from ponder.bench.driver import BatchRefused, Driver
from ponder.client import Client


@dataclass
class Service:
    """A service in which each job takes two seconds, and its clock."""

    job_s: float = 2.0
    now: float = 0.0
    submitted_at: dict[str, float] = field(default_factory=dict)
    sizes: dict[str, int] = field(default_factory=dict)
    cancelled: list[str] = field(default_factory=list)
    most_in_flight: int = 0
    rejected: int = 0
    _uploaded: int = 0

    def upload(self, lines: Callable[[], Iterable[bytes]], _name: str) -> dict[str, Any]:
        self._uploaded = sum(piece.count(b"\n") for piece in lines())
        return {"id": "file-1"}

    def submit(self, _file: str, **_settings: Any) -> dict[str, Any]:
        batch = f"batch_{len(self.sizes)}"
        self.submitted_at[batch], self.sizes[batch] = self.now, self._uploaded
        in_flight = sum(size for one, size in self.sizes.items() if self.now < self.submitted_at[one] + self.job_s)
        self.most_in_flight = max(self.most_in_flight, in_flight)
        return {"id": batch}

    def batch(self, batch: str) -> dict[str, Any]:
        is_done = self.now >= self.submitted_at[batch] + self.job_s
        counts = {"total": self.sizes[batch], "completed": self.sizes[batch] if is_done else 0, "failed": 0}
        state = "completed" if is_done else "in_progress"
        own = {"counts": {"rejected": self.rejected}}
        return {"id": batch, "status": state, "request_counts": counts, "errors": None, "ponder": own} | {
            "error_file_id": "file-2"
        }

    def download(self, _file: str) -> Any:
        raise KeyboardInterrupt

    def cancel(self, batch: str) -> None:
        self.cancelled.append(batch)

    def sleep(self, seconds: float) -> None:
        self.now += max(seconds, 0.01)

    def driver(self) -> Driver:
        client = cast(Client, self)
        return Driver(client, "test", {}, lambda num: None, clock=lambda: self.now, sleep=self.sleep)


LINES = [{"custom_id": f"p{n}#0"} for n in range(6)]


def test_all_at_once_is_one_batch() -> None:
    service = Service()
    assert service.driver().run(LINES, [0.0] * 6, None) == ["batch_0"]
    assert service.sizes == {"batch_0": 6}


def test_jobs_are_submitted_when_they_arrive_whether_or_not_others_have_settled() -> None:
    service = Service()
    service.driver().run(LINES, [0.0, 0.5, 0.5, 3.0, 9.0, 9.1], None)
    assert list(service.sizes.values()) == [1, 2, 1, 1, 1]
    assert list(service.submitted_at.values()) == pytest.approx([0.0, 0.5, 3.0, 9.0, 9.1], abs=0.02)


def test_never_more_jobs_are_in_flight_than_allowed() -> None:
    service = Service()
    service.driver().run(LINES, [0.0] * 6, 2)
    assert service.most_in_flight == 2
    assert sum(service.sizes.values()) == 6
    assert list(service.submitted_at.values()) == pytest.approx([0.0, 2.0, 4.0], abs=0.6)


def test_whatever_ends_it_early_its_open_batches_are_cancelled() -> None:
    service = Service(rejected=1)
    with pytest.raises(KeyboardInterrupt):
        service.driver().run(LINES, [0.0] * 6, None)
    assert service.cancelled == ["batch_0"]


def test_a_batch_that_fails_as_a_whole_ends_the_run_with_its_reason() -> None:
    service = Service()
    whole = service.batch
    refused = {"status": "failed", "errors": {"data": [{"message": "no worker serves x"}]}}
    service.batch = lambda batch: whole(batch) | refused  # type: ignore[method-assign]
    with pytest.raises(BatchRefused, match="no worker serves x"):
        service.driver().run(LINES, [0.0] * 6, None)
