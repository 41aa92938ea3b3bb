"""Lessons about the batches of the jobs in the engine process."""

from __future__ import annotations

from ponder_worker.engine_process.learned import Learned


def test_the_newest_sums_of_a_batch_count_and_a_batch_without_jobs_here_is_forgotten() -> None:
    learned = Learned()
    assert learned.of("a", "s:") == {}
    learned.take({"a": {"s:x": 1}, "b": {"s:x": 5}}, ["a", "b"])
    learned.take({"a": {"s:x": 2, "s:y": 0.5}}, ["a", "b"])
    assert learned.of("a", "s:") == {"x": 2.0, "y": 0.5}
    assert learned.of("b", "s:") == {"x": 5.0}
    learned.take({}, ["b"])
    assert learned.of("a", "s:") == {}
    assert learned.of("b", "s:") == {"x": 5.0}


def test_what_former_batches_taught_is_added_and_other_models_and_strategies_teach_nothing() -> None:
    learned = Learned()
    learned.take({"a": {"s:x": 1, "other:x": 7}}, ["a"])
    learned.take_former({"s:x": 0.5, "s:z": 2, "other:z": 9})
    assert learned.of("a", "s:") == {"x": 1.5, "z": 2}
    learned.take_former({"s:x": 0.25})
    assert learned.of("new", "s:") == {"x": 0.25, "z": 2}
