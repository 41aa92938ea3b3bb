"""The fair queue of owners."""

from __future__ import annotations

import threading

from hypothesis import given
from hypothesis import strategies as st

from ponder_worker.verify.judge import FairQueue


def _take(queue: FairQueue[str], seconds: float = 0.0) -> str | None:
    """Serves the next item in so many seconds, and returns it."""
    if (turn := queue.take()) is None:
        return None
    queue.served(turn[0], seconds)
    return turn[1]


def test_each_owner_has_its_turn_and_its_items_keep_their_order() -> None:
    queue: FairQueue[str] = FairQueue(8)
    for item in ("a1", "a2", "a3", "b1", "c1", "c2"):
        queue.put(item[0], item)
    queue.close()
    assert [_take(queue) for _ in range(7)] == ["a1", "b1", "c1", "a2", "c2", "a3", None]


def test_owners_get_the_same_time_and_not_the_same_number_of_turns() -> None:
    queue: FairQueue[str] = FairQueue(8)
    for number in range(3):
        queue.put("slow", f"slow{number}")
    for number in range(25):
        queue.put("quick", f"quick{number}")
    queue.close()
    order = []
    while (turn := queue.take()) is not None:
        order.append(turn[0])
        queue.served(turn[0], 10.0 if turn[0] == "slow" else 1.0)
    assert [order[:20].count("slow"), order[:20].count("quick")] == [2, 18]
    assert order.index("slow", 2) >= 11


def test_what_is_being_served_keeps_its_owner_from_a_fresh_start() -> None:
    """The owner of a hanging case comes back while others wait. Its used time still counts."""
    queue: FairQueue[str] = FairQueue(8)
    queue.put("slow", "slow1")
    assert queue.take() == ("slow", "slow1")
    for number in range(3):
        queue.put("quick", f"quick{number}")
    queue.served("slow", 10.0)
    queue.put("slow", "slow2")
    queue.close()
    assert [_take(queue, 1.0) for _ in range(5)] == ["quick0", "quick1", "quick2", "slow2", None]


def test_absence_saves_no_time_up() -> None:
    queue: FairQueue[str] = FairQueue(8)
    for number in range(6):
        queue.put("old", f"old{number}")
    assert [_take(queue, 5.0) for _ in range(2)] == ["old0", "old1"]
    for number in range(3):
        queue.put("new", f"new{number}")
    assert [_take(queue, 5.0) for _ in range(4)] == ["old2", "new0", "old3", "new1"]


def test_of_one_owner_no_more_are_served_at_a_time_than_is_said() -> None:
    queue: FairQueue[str] = FairQueue(2)
    for item in ("a1", "a2", "a3", "a4", "b1"):
        queue.put(item[0], item)
    assert [queue.take() for _ in range(3)] == [("a", "a1"), ("b", "b1"), ("a", "a2")]
    taken: list[tuple[object, str] | None] = []
    waiting = threading.Thread(target=lambda: taken.extend([queue.take()]))
    waiting.start()
    queue.served("b", 1.0)
    waiting.join(0.1)
    assert waiting.is_alive()
    queue.served("a", 1.0)
    waiting.join(10)
    assert taken == [("a", "a3")]
    queue.close()
    queue.served("a", 1.0)
    assert queue.take() == ("a", "a4")
    assert queue.take() is None


@given(costs=st.dictionaries(st.sampled_from("abcd"), st.lists(st.integers(1, 9), min_size=1, max_size=30), min_size=2))
def test_while_all_wait_nobody_is_ahead_by_more_than_one_item(costs: dict[str, list[int]]) -> None:
    queue: FairQueue[int] = FairQueue(8)
    for owner, items in costs.items():
        for item in items:
            queue.put(owner, item)
    queue.close()
    used = dict.fromkeys(costs, 0)
    left = {owner: len(items) for owner, items in costs.items()}
    while (turn := queue.take()) is not None:
        owner, cost = str(turn[0]), turn[1]
        if all(left.values()):
            assert used[owner] == min(used.values())
        used[owner] += cost
        left[owner] -= 1
        queue.served(owner, cost)
    assert used == {owner: sum(items) for owner, items in costs.items()}


def test_a_waiting_thread_is_woken_by_the_next_item_and_by_the_end() -> None:
    queue: FairQueue[str] = FairQueue(8)
    taken: list[tuple[object, str] | None] = []
    waiting = [threading.Thread(target=lambda: taken.append(queue.take())) for _ in range(2)]
    for thread in waiting:
        thread.start()
    queue.put("a", "a1")
    queue.close()
    for thread in waiting:
        thread.join(10)
    assert set(taken) == {("a", "a1"), None}
