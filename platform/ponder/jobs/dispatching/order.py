"""The order in which a tenant's work is dispatched, and how many jobs a shard takes.

These functions decide what the SQL of `cut` decides, for those who plan without a database. Tests keep both the same.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime

from ponder.jobs.shard import MAX_JOBS

SPAN = 2_048
"""Lines searched for one shard. Where a batch mixes models, a shard may get fewer jobs than fit in it."""


@dataclass(frozen=True, slots=True)
class Source:
    """A source of work: a shard that was handed back (`shard_id` is set), or the uncut rest of a portion.

    is_pilot: it is a shard of a pilot that is not decided yet. due_at and submitted_at are those of its batch.
    """

    tenant_id: str
    model: str
    fingerprint: str
    lane: str
    shard_id: int | None
    batch_id: str
    is_pilot: bool
    due_at: datetime
    submitted_at: datetime

    @property
    def queue(self) -> tuple[str, str, str]:
        return (self.model, self.fingerprint, self.lane)


def precedence(source: Source) -> tuple[bool, datetime, datetime, str, bool, int]:
    """Returns the sort key of a tenant's sources of one queue: the smallest is next.

    Pilots come first, because the rest of their batches waits for them. Then the earliest deadline comes first. Of one
    batch, shards that were begun come before what is not cut yet.
    """
    is_uncut = source.shard_id is None
    key = (source.due_at, source.submitted_at, source.batch_id, is_uncut, source.shard_id or 0)
    return (not source.is_pilot, *key)


def num_taken(estimated_tokens: Iterable[int], shard_tokens: int | None) -> int:
    """Returns how many of the next jobs a shard takes: up to `shard_tokens` and MAX_JOBS, and one at least.

    `shard_tokens` None is no limit. Returns 0 only without jobs.
    """
    number = total = 0
    for tokens in estimated_tokens:
        total += tokens
        is_full = shard_tokens is not None and total > shard_tokens
        if number == MAX_JOBS or (number and is_full):
            break
        number += 1
    return number


def next_cut(uncut: Sequence[tuple[int, int]], cut_until: int, last_line: int, shard_tokens: int) -> tuple[int, int]:
    """Returns how many of a portion's uncut jobs the next shard takes, and up to which line the portion is cut then.

    uncut: line and estimated tokens of the jobs after `cut_until`, in the order of their lines.
    """
    until = min(cut_until + SPAN, last_line)
    near = [(line, tokens) for line, tokens in uncut[: MAX_JOBS + 1] if line <= until]
    number = num_taken((tokens for _, tokens in near), shard_tokens)
    return number, near[number - 1][0] if number < len(near) else until
