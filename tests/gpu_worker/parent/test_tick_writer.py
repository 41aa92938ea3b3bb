"""Ticks on their way to a real Postgres whose answers get lost."""

from __future__ import annotations

from typing import cast

import pytest
from sqlalchemy import Engine, text

from ponder.domain.state import IncarnationState
from ponder.jobs import incarnation
from ponder.jobs.claim import claim
from ponder.jobs.tick import TickReply
from ponder_worker.parent.tick_writer import TickState, TickWriter
from ponder_worker.parent.unsaved import Unsaved

from ..shard import queue_shard_of_two
from ..unreliable_database import Moment, UnreliableDatabase

READY = IncarnationState.READY


class Writer(TickWriter):
    """Writes for an incarnation that holds the first job, and notes the ids of each tick that was saved."""

    def __init__(self, engine: Engine) -> None:
        self.database = UnreliableDatabase(engine)
        self.saved: list[list[int]] = []
        with engine.begin() as connection:
            incarnation.register(
                connection, id="inc", worker="w", host="h", pid=1, model="m", machine="cpu", market="spot", lease_s=30
            )
            incarnation.ready(
                connection, "inc", fingerprint="f", context_length=100, has_reward_model=False, room_tokens=1000
            )
            claimed = claim(connection, queue_shard_of_two(connection), "inc")
            assert claimed is not None
        self._job_id = claimed.jobs[0].job_id
        super().__init__(cast("Engine", self.database), "inc", lease_s=30, on_saved=self._note)

    def gather(self, *ids: int) -> None:
        self.gathered.deltas[self._job_id] = [{"nodes": [{"node": 1, "ids": list(ids)}]}]

    def _note(self, reply: TickReply, saved: Unsaved) -> None:
        self.saved.append([token for (delta,) in saved.deltas.values() for token in delta["nodes"][0]["ids"]])


@pytest.mark.parametrize("moment", ["before", "after"])
def test_a_tick_is_unconfirmed_until_a_commit_of_it_is_answered_and_then_the_next_one_is_made(
    engine: Engine, moment: Moment
) -> None:
    writer = Writer(engine)
    writer.gather(1, 2)
    writer.database.fails = moment
    assert writer.write(READY, 1000) is TickState.UNCONFIRMED
    assert writer.saved == []
    writer.gather(3)
    writer.database.fails = moment
    assert writer.write(READY, 1000) is TickState.UNCONFIRMED, "the same tick, lost again"
    assert writer.saved == []
    assert writer.write(READY, 1000) is TickState.CONFIRMED
    assert writer.saved == [[1, 2], [3]]
    with engine.connect() as connection:
        assert connection.execute(text("SELECT num_ticks FROM incarnations")).scalar_one() == 2
        assert connection.execute(text("SELECT count(*) FROM tree_deltas")).scalar_one() == 2
