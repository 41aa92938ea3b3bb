"""Tells what a batch gained in each stretch of its time, for plots."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Row, text

from ponder.errors import NotFound
from ponder.jobs.tally import HISTORY_SUMS, LONGEST_STRETCH_S, STARTED_AT, STRETCHES
from ponder.store.retention import ENDED_AT

_MOST_STRETCHES = 80
_LENGTHS_S = (5, 10, 30, 60, 120, 300, 600, 1_200, 1_800, 3_600, 7_200, 14_400, 21_600)

_SPAN = text(f"""
    SELECT extract(epoch FROM {STARTED_AT}) AS begin_s,
           extract(epoch FROM coalesce({ENDED_AT}, clock_timestamp())) AS end_s
    FROM batches WHERE id = :id AND tenant_id = :tenant_id
""")
_HISTORY = text(f"""
    SELECT extract(epoch FROM date_bin(make_interval(secs => :length_s), begin_at, 'epoch')) AS begin_s,
           {", ".join(f"CAST(sum({name}) AS bigint) AS {name}" for name in HISTORY_SUMS)}
    FROM (
        SELECT begin_at, {", ".join(HISTORY_SUMS)} FROM batch_history WHERE batch_id = :id
        UNION ALL
        SELECT at, {", ".join(HISTORY_SUMS)} FROM tallies WHERE batch_id = :id
    ) AS gained
    GROUP BY 1 ORDER BY 1
""")


@dataclass(frozen=True, slots=True)
class History:
    """The gains of a batch from its beginning until its end or now, in Unix seconds.

    `stretches` have `length_s` seconds each and the sums of `HISTORY_SUMS` from their `begin_s` on; those without any
    gain are left out.
    """

    begin_s: float
    end_s: float
    length_s: int
    stretches: Sequence[Row[Any]]


def history(connection: Connection, tenant_id: str, batch_id: str) -> History:
    """Returns the history of a batch in about as many stretches as a plot can show. Raises NotFound."""
    span = connection.execute(_SPAN, {"id": batch_id, "tenant_id": tenant_id}).one_or_none()
    if span is None:
        raise NotFound(f"there is no batch {batch_id}", param="batch_id")
    begin_s, end_s = float(span.begin_s), float(span.end_s)
    length_s = _length_s(end_s - begin_s)
    rows = connection.execute(_HISTORY, {"id": batch_id, "length_s": length_s}).all()
    return History(begin_s, end_s, length_s, rows)


def _length_s(span_s: float) -> int:
    """Returns a round length of stretches that is no shorter than any that was kept."""
    kept_s = next((seconds for until_s, seconds in STRETCHES if span_s <= until_s), LONGEST_STRETCH_S)
    wanted_s = max(kept_s, span_s / _MOST_STRETCHES)
    return next((length_s for length_s in _LENGTHS_S if length_s >= wanted_s), _LENGTHS_S[-1])
