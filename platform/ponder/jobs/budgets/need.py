"""The least that budgets must have left for a batch to go on."""

from __future__ import annotations

from collections.abc import Collection

from sqlalchemy import Connection, text

from ponder.jobs.piloting.pilot import UNDECIDED

_LEAST = text(f"""
    SELECT batch_id, min(coalesce(least_tokens, 1)) AS tokens FROM (
        SELECT batch_id, least_tokens FROM shards
        WHERE state = 'queued' AND batch_id = ANY(CAST(:batch_ids AS text[]))
        UNION ALL
        SELECT batch_id, least_tokens FROM portions JOIN batches ON batches.id = batch_id
        WHERE cut_until < last_line AND batch_id = ANY(CAST(:batch_ids AS text[])) AND NOT {UNDECIDED}
    ) AS waiting GROUP BY batch_id
""")


def least_needs(connection: Connection, batch_ids: Collection[str]) -> dict[str, int]:
    """Returns the tokens that the budgets of each batch must at least have left for one of its waiting jobs.

    Batches without waiting jobs are left out.
    """
    return {row.batch_id: row.tokens for row in connection.execute(_LEAST, {"batch_ids": sorted(batch_ids)})}
