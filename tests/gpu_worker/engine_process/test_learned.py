"""Lessons about the batches of the jobs in the engine process."""

from __future__ import annotations

from ponder_worker.engine_process.learned import Learned


def test_the_newest_sums_of_a_batch_count_and_a_batch_without_jobs_here_is_forgotten() -> None:
    learned = Learned()
    assert learned.of("a") == {}
    learned.take({"a": {"x": 1}, "b": {"x": 5}}, ["a", "b"])
    learned.take({"a": {"x": 2, "y": 0.5}}, ["a", "b"])
    assert learned.of("a") == {"x": 2.0, "y": 0.5}
    assert learned.of("b") == {"x": 5.0}
    learned.take({}, ["b"])
    assert learned.of("a") == {}
    assert learned.of("b") == {"x": 5.0}
