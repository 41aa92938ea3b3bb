"""Who is served next."""

from __future__ import annotations

import threading

from ponder_worker.verify.turns import Turns


def test_each_owner_has_its_turn_and_its_items_keep_their_order() -> None:
    turns: Turns[str] = Turns()
    for item in ("a1", "a2", "a3", "b1", "c1", "c2"):
        turns.put(item[0], item)
    turns.close()
    assert [turns.take() for _ in range(7)] == ["a1", "b1", "c1", "a2", "c2", "a3", None]


def test_who_waits_is_woken_by_the_next_item_and_by_the_end() -> None:
    turns: Turns[str] = Turns()
    taken: list[str | None] = []
    waiting = [threading.Thread(target=lambda: taken.append(turns.take())) for _ in range(2)]
    for thread in waiting:
        thread.start()
    turns.put("a", "a1")
    turns.close()
    for thread in waiting:
        thread.join(10)
    assert set(taken) == {"a1", None}
