"""How many tokens a path may take, and who has set that limit."""

from __future__ import annotations

import pytest

from ponder_worker.search.expansion.search_limits import SearchLimits


@pytest.mark.parametrize(
    ("per_sample", "room", "is_whole"), [(None, 50, False), (20, 50, True), (50, 50, True), (51, 50, False)]
)
def test_a_limit_is_the_user_s_unless_the_context_is_tighter(per_sample: int | None, room: int, is_whole: bool) -> None:
    assert SearchLimits(None, per_sample, room).is_whole is is_whole


@pytest.mark.parametrize(
    ("per_sample", "room", "num_tokens", "left"),
    [(None, 50, 20, 30), (30, 50, 20, 10), (60, 50, 20, 30), (10, 50, 20, 0)],
)
def test_a_path_may_grow_up_to_the_tighter_of_both_limits(
    per_sample: int | None, room: int, num_tokens: int, left: int
) -> None:
    assert SearchLimits(None, per_sample, room).left(num_tokens) == left
