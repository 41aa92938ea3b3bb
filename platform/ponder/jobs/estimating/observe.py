"""Observes what completed jobs took, for estimates of others. Bounded: about a row for each model, strategy and level.

As with lessons (see `learn`), ticks only append, the dispatcher folds, and readers add up both, so that no tick waits
for a row that others write.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable
from types import SimpleNamespace
from typing import Any

from sqlalchemy import Connection, Row, text

from ponder.domain.batch.cell import Cell, level_of
from ponder.domain.forecast.experience import BatchExperience, Experience, Observation, Sums
from ponder.domain.forecast.lengths import CellKey
from ponder.store.document import dumps
from ponder.store.folding import added_up, lock_folding

MOST_CELLS = 1_000
"""The most rows of a tenant. Beyond this, new strategies and levels share one row per model."""
_MOST_NEAR = 32
"""The most cells of a tenant that are read for a batch, beyond those that it has itself."""
_FOLDING = 0x6F627376  # "obsv"
_KEY = "tenant_id, fingerprint, strategy, level"
_STOPPED = ("stop", None)
_ASKED = """
    SELECT fingerprint, strategy, level
    FROM json_to_recordset(CAST(:cells AS json)) AS asked(fingerprint text, strategy text, level text)
"""

# The prompt stays in Postgres: only its size is read. Token ids have none, because their number is known anyway.
# One document instead of rows, which the driver would decode value by value.
_COMPLETED = text("""
    SELECT coalesce(json_agg(row_to_json(job)), '[]') FROM (
    SELECT jobs.tenant_id, jobs.batch_id, jobs.fingerprint, level,
           request - 'messages' - 'prompt' AS request, finish_reason,
           prompt_tokens, completion_tokens, reward_tokens, charged.machine, charged.engine_s,
           coalesce((SELECT sum(octet_length(message ->> 'content'))
                     FROM jsonb_array_elements(request -> 'messages') AS message),
                    CASE jsonb_typeof(request -> 'prompt') WHEN 'string' THEN octet_length(request ->> 'prompt') END)
               AS prompt_bytes,
           (SELECT max(context_length) FROM models WHERE models.fingerprint = jobs.fingerprint) AS context_length
    FROM jobs JOIN usage ON usage.job_id = jobs.id JOIN results ON results.job_id = jobs.id
    LEFT JOIN LATERAL (
        SELECT CASE WHEN count(DISTINCT machine) = 1 THEN min(machine) END AS machine,
               CAST(sum(nanodollars * 3600 / CAST(nullif(nanodollars_per_hour, 0) AS float8)) AS float8) AS engine_s
        FROM ledger_entries JOIN incarnations ON incarnations.id = incarnation_id WHERE ledger_entries.job_id = jobs.id
    ) AS charged ON true
    WHERE jobs.id = ANY(CAST(:ids AS bigint[])) AND jobs.state = 'completed'
    ) AS job
""")

_APPEND = text(f"""
    INSERT INTO observations ({_KEY}, batch_id, sums)
    SELECT {_KEY}, batch_id, sums
    FROM json_to_recordset(CAST(:cells AS json))
      AS cell(tenant_id text, fingerprint text, strategy text, level text, batch_id text, sums jsonb)
""")

_OBSERVED = text(
    added_up(
        "fingerprint, strategy, level",
        """
            SELECT fingerprint, strategy, level, sums FROM experience
            WHERE tenant_id = :tenant_id AND fingerprint = ANY(CAST(:fingerprints AS text[]))
            UNION ALL
            SELECT fingerprint, strategy, level, sums FROM observations
            WHERE tenant_id = :tenant_id AND fingerprint = ANY(CAST(:fingerprints AS text[]))
        """,
    )
)

_OBSERVED_IN = text(
    added_up(
        "fingerprint, strategy, level",
        f"""
            SELECT fingerprint, strategy, level, sums FROM batch_experience
            WHERE batch_id = :batch_id AND (fingerprint, strategy, level) IN ({_ASKED})
            UNION ALL
            SELECT fingerprint, strategy, level, sums FROM observations
            WHERE tenant_id = :tenant_id AND batch_id = :batch_id AND (fingerprint, strategy, level) IN ({_ASKED})
        """,
    )
)

_NEAR = f"""
    {_ASKED}
    UNION
    (SELECT fingerprint, strategy, level FROM experience
     WHERE tenant_id = :tenant_id AND fingerprint IN (SELECT fingerprint FROM ({_ASKED}) AS asked)
     ORDER BY (fingerprint, strategy, level) NOT IN ({_ASKED}), fingerprint, strategy, level LIMIT {_MOST_NEAR})
"""

_OBSERVED_NEAR = text(
    added_up(
        "fingerprint, strategy, level",
        f"""
            SELECT fingerprint, strategy, level, sums FROM experience
            WHERE tenant_id = :tenant_id AND (fingerprint, strategy, level) IN ({_NEAR})
            UNION ALL
            SELECT fingerprint, strategy, level, sums FROM observations
            WHERE tenant_id = :tenant_id AND (fingerprint, strategy, level) IN ({_NEAR})
        """,
    )
)

_OWN_KEY = "batch_id, fingerprint, strategy, level"
_OWN_TOTAL = added_up(
    _OWN_KEY,
    f"""
        SELECT {_OWN_KEY}, sums FROM placed WHERE batch_id IS NOT NULL
        UNION ALL
        SELECT {_OWN_KEY}, sums FROM batch_experience WHERE ({_OWN_KEY}) IN (SELECT {_OWN_KEY} FROM placed)
    """,
)

_TOTAL = added_up(
    _KEY,
    f"""
        SELECT {_KEY}, sums FROM placed
        UNION ALL
        SELECT {_KEY}, sums FROM experience WHERE ({_KEY}) IN (SELECT {_KEY} FROM placed)
    """,
)

# A tenant chooses parameters and levels at will, so the number of cells has a limit.
_FOLD = text(f"""
    WITH taken AS (
        DELETE FROM observations WHERE id IN (SELECT id FROM observations ORDER BY id LIMIT 10000)
        RETURNING {_KEY}, batch_id, sums
    ), ranked AS (
        SELECT {_KEY}, dense_rank() OVER (PARTITION BY tenant_id ORDER BY fingerprint, strategy, level)
                     + (SELECT count(*) FROM experience WHERE experience.tenant_id = new.tenant_id) AS number
        FROM (SELECT DISTINCT {_KEY} FROM taken EXCEPT SELECT {_KEY} FROM experience) AS new
    ), placed AS (
        SELECT tenant_id, fingerprint, CASE WHEN number > {MOST_CELLS} THEN '' ELSE strategy END AS strategy,
               CASE WHEN number > {MOST_CELLS} THEN '' ELSE level END AS level, batch_id, sums
        FROM taken LEFT JOIN ranked USING ({_KEY})
    ), own AS (
        INSERT INTO batch_experience ({_OWN_KEY}, sums)
        SELECT {_OWN_KEY}, sums FROM ({_OWN_TOTAL}) AS total ORDER BY {_OWN_KEY}
        ON CONFLICT ({_OWN_KEY}) DO UPDATE SET sums = excluded.sums
    )
    INSERT INTO experience ({_KEY}, sums) SELECT {_KEY}, sums FROM ({_TOTAL}) AS total ORDER BY {_KEY}
    ON CONFLICT ({_KEY}) DO UPDATE SET sums = excluded.sums
""")


def observe(connection: Connection, job_ids: Collection[int]) -> None:
    """Appends what the completed ones of these jobs took, added up by cell. Their costs are booked already."""
    if not job_ids:
        return
    cells: dict[tuple[str, ...], dict[str, float]] = defaultdict(lambda: defaultdict(float))
    for completed in connection.execute(_COMPLETED, {"ids": sorted(job_ids)}).scalar_one():
        row = SimpleNamespace(**completed)
        cell = Cell.of(row.request, max((row.context_length or 2**31) - row.prompt_tokens, 1))
        key = (row.tenant_id, row.fingerprint, cell.strategy, level_of(row.level), row.batch_id)
        for name, value in _observation(row, cell).sums().items():
            cells[key][name] += value
    names = [*_KEY.split(", "), "batch_id"]
    rows = [{**dict(zip(names, key, strict=True)), "sums": sums} for key, sums in cells.items()]
    if rows:
        connection.execute(_APPEND, {"cells": dumps(rows)})


def observed(connection: Connection, tenant_id: str, fingerprints: Collection[str]) -> Experience:
    """Returns what a tenant's jobs tell about models. Nobody sees what the jobs of others tell."""
    rows = connection.execute(_OBSERVED, {"tenant_id": tenant_id, "fingerprints": sorted(fingerprints)})
    return Experience(_by_cell(rows))


def observed_in(
    connection: Connection, tenant_id: str, batch_id: str, cells: Collection[CellKey], *, num_pilot: int = 0
) -> BatchExperience:
    """Returns what the tenant's jobs tell about the cells of a batch, its own jobs foremost.

    `num_pilot` is the number of jobs of its pilot.
    Reads these cells and a few others of their models, because it is asked for again and again.
    """
    asked = [{"fingerprint": key[0], "strategy": key[1], "level": key[2]} for key in sorted(cells)]
    values = {"tenant_id": tenant_id, "batch_id": batch_id, "cells": dumps(asked)}
    own = connection.execute(_OBSERVED_IN, values)
    return BatchExperience(_by_cell(own), _by_cell(connection.execute(_OBSERVED_NEAR, values)), num_pilot)


def fold_observations(connection: Connection) -> None:
    """Folds up to 10,000 appended observations, so that they are read faster. The totals stay the same."""
    lock_folding(connection, _FOLDING)
    connection.execute(_FOLD)


def _by_cell(rows: Iterable[Row[Any]]) -> dict[CellKey, Sums]:
    return {(row.fingerprint, row.strategy, row.level): row.sums for row in rows}


def _observation(row: SimpleNamespace, cell: Cell) -> Observation:
    return Observation(
        tokens=max(row.completion_tokens, 1) / cell.samples,
        is_censored=_is_censored(row, cell),
        generated_tokens=row.completion_tokens,
        prompt_tokens=row.prompt_tokens,
        reward_tokens=row.reward_tokens,
        prompt_bytes=row.prompt_bytes,
        machine=row.machine if row.engine_s else None,
        engine_s=row.engine_s or 0.0,
    )


def _is_censored(row: SimpleNamespace, cell: Cell) -> bool:
    """Returns whether the job was cut off: by its cap, its dollars or its deadline.

    Of several samples the chosen one may be cut off and the others not, so that only their sum tells.
    """
    if row.completion_tokens >= 0.99 * cell.samples * cell.cap:
        return True
    return row.finish_reason not in _STOPPED and (cell.samples == 1 or row.finish_reason != "length")
