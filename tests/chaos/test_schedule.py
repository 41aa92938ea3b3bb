"""The order in which faults come."""

from __future__ import annotations

from collections import Counter

from fault_injection.schedule import KINDS, schedule


def test_the_same_seed_gives_the_same_faults_and_another_seed_others() -> None:
    assert schedule(7, 200) == schedule(7, 200)
    assert [fault.kind for fault in schedule(7, 200)] != [fault.kind for fault in schedule(8, 200)]


def test_a_shorter_run_is_the_beginning_of_a_longer_one() -> None:
    assert schedule(7, 200)[:60] == schedule(7, 60)


def test_no_kind_of_fault_is_rare() -> None:
    counts = Counter(fault.kind.name for fault in schedule(7, 60))
    assert counts.keys() == {kind.name for kind in KINDS}
    assert max(counts.values()) - min(counts.values()) <= 1
