"""Discards what users sent and got: from then on nobody sees it, and its rows are deleted later (see `prune`)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import Connection, Engine, TextClause, text

from ponder.jobs.wake import wake
from ponder.store.retention import ENDED_AT, RESULTS_EXPIRE_AT


@dataclass(frozen=True, slots=True)
class Discarded:
    """The ended batches that are discarded, their lines, their files and unused ones, and the bytes of all of it."""

    batches: int
    lines: int
    files: int
    bytes: int

    def __add__(self, other: Discarded) -> Discarded:
        return Discarded(
            self.batches + other.batches,
            self.lines + other.lines,
            self.files + other.files,
            self.bytes + other.bytes,
        )


@dataclass(frozen=True, slots=True)
class Marked:
    """The batches, and the input files that no batch uses, that a transaction discards or would discard."""

    batch_ids: Sequence[str]
    file_ids: Sequence[str]


# Of a batch that has ended, a worker may hold jobs until its next tick, and rows may still follow.
_IS_OVER = f"""
    pruned_at IS NULL AND {ENDED_AT} IS NOT NULL AND followed_line IS NULL
    AND NOT EXISTS (SELECT FROM shards WHERE shards.batch_id = batches.id AND shards.state <> 'finished')
"""
_IS_DUE = f"output_expires_after_s IS NOT NULL AND {RESULTS_EXPIRE_AT} <= clock_timestamp()"
_IS_OLD = f"{ENDED_AT} <= clock_timestamp() - CAST(:older_than_s AS float8) * interval '1 second'"
_IS_MINE = "(CAST(:tenant_id AS text) IS NULL OR {table}.tenant_id = :tenant_id)"


def _chosen(which: str) -> str:
    return f"SELECT id FROM batches WHERE {_IS_OVER} AND {_IS_MINE.format(table='batches')} AND {which}"


def _mark(which: str) -> TextClause:
    """A batch that another transaction is copying jobs from is left for the next time."""
    return text(f"""
        WITH chosen AS MATERIALIZED ({_chosen(which)} ORDER BY id FOR NO KEY UPDATE SKIP LOCKED),
        hidden AS (
            UPDATE files SET deleted_at = clock_timestamp()
            FROM batches JOIN chosen ON chosen.id = batches.id
            WHERE files.id IN (output_file_id, error_file_id) AND deleted_at IS NULL
        )
        UPDATE batches SET pruned_at = clock_timestamp(), pruned_line = 0, options = '{{}}'
        FROM chosen WHERE batches.id = chosen.id
        RETURNING batches.id
    """)


_MARK_DUE = _mark(_IS_DUE)
_MARK_OLD = _mark(f"({_IS_DUE} OR {_IS_OLD})")
_FIND = text(_chosen(f"({_IS_DUE} OR {_IS_OLD})"))

# A submission holds a share lock on its file until its batch can be seen.
_UNUSED = f"""
    SELECT files.id FROM files JOIN tenants ON tenants.id = files.tenant_id
    WHERE kind = 'input' AND deleted_at IS NULL AND {_IS_MINE.format(table="files")}
      AND (output_expires_after_s IS NOT NULL OR CAST(:older_than_s AS float8) IS NOT NULL)
      AND files.created_at <= clock_timestamp() - interval '1 second'
          * least(CAST(:older_than_s AS float8), tenants.output_expires_after_s)
      AND NOT EXISTS (SELECT FROM batches WHERE input_file_id = files.id)
"""
_FIND_UNUSED = text(_UNUSED)
_LOCK_UNUSED = text(f"{_UNUSED} ORDER BY files.id LIMIT 1000 FOR UPDATE OF files SKIP LOCKED")
_LOCK_INPUT = text("""
    SELECT files.id FROM files JOIN batches ON batches.input_file_id = files.id
    WHERE batches.id = :batch_id AND deleted_at IS NULL FOR UPDATE OF files
""")
_ERASE = text("""
    UPDATE files SET deleted_at = clock_timestamp(), is_erasing = true
    WHERE id = ANY(CAST(:ids AS text[]))
      AND NOT EXISTS (SELECT FROM batches WHERE input_file_id = files.id AND pruned_at IS NULL)
    RETURNING id
""")

_MEASURE = text("""
    WITH chosen AS MATERIALIZED (SELECT unnest(CAST(:batch_ids AS text[])) AS id),
    file AS MATERIALIZED (
        SELECT files.id, files.bytes FROM files
        WHERE kind = 'input' AND deleted_at IS NULL
          AND id IN (SELECT input_file_id FROM batches JOIN chosen USING (id))
          AND NOT EXISTS (SELECT FROM batches WHERE input_file_id = files.id AND pruned_at IS NULL
                          AND id NOT IN (SELECT id FROM chosen))
        UNION ALL
        SELECT id, bytes FROM files WHERE id = ANY(CAST(:file_ids AS text[]))
    ), job AS MATERIALIZED (
        SELECT jobs.id, pg_column_size(request) AS bytes FROM jobs JOIN chosen ON chosen.id = batch_id
    )
    SELECT (SELECT count(*) FROM chosen) AS batches,
           (SELECT coalesce(sum(num_lines), 0) FROM batches JOIN chosen USING (id)) AS lines,
           (SELECT count(*) FROM file)
               + (SELECT count(output_file_id) + count(error_file_id) FROM batches JOIN chosen USING (id)) AS files,
           (SELECT coalesce(sum(bytes), 0) FROM file) + (SELECT coalesce(sum(bytes), 0) FROM job)
               + (SELECT coalesce(sum(pg_column_size(results.*)), 0) FROM results JOIN job ON job.id = job_id)
               + (SELECT coalesce(sum(pg_column_size(tree)), 0) FROM search_trees JOIN job ON job.id = job_id) AS bytes
""")


def discardable(connection: Connection, tenant_id: str | None, older_than_s: float | None) -> Discarded:
    """Returns what `discard_all` would discard now. `tenant_id` None means all tenants."""
    values = {"tenant_id": tenant_id, "older_than_s": older_than_s}
    batch_ids = connection.execute(_FIND, values).scalars().all()
    return _measured(connection, Marked(batch_ids, connection.execute(_FIND_UNUSED, values).scalars().all()))


def discard_all(engine: Engine, tenant_id: str | None, older_than_s: float | None) -> Discarded:
    """Discards in as many transactions as it takes. Returns what was discarded."""
    found = Discarded(0, 0, 0, 0)
    while True:
        with engine.begin() as connection:
            marked = discard(connection, tenant_id, older_than_s)
            found += _measured(connection, marked)
            wake(connection)
        if not marked.file_ids:  # only files may be left over
            return found


def discard(connection: Connection, tenant_id: str | None = None, older_than_s: float | None = None) -> Marked:
    """Discards ended batches whose results have expired, and up to 1,000 input files that no batch uses.

    With `older_than_s`, also discards batches that ended, and unused files that came, so many seconds ago. Nothing of a
    batch that has not ended is discarded, nor an input file that one uses.
    """
    values = {"tenant_id": tenant_id, "older_than_s": older_than_s}
    batch_ids = connection.execute(_MARK_DUE if older_than_s is None else _MARK_OLD, values).scalars().all()
    return Marked(batch_ids, erase(connection, connection.execute(_LOCK_UNUSED, values).scalars().all()))


def discard_input(connection: Connection, batch_id: str) -> None:
    """Discards the input file of a discarded batch, unless another batch still needs it."""
    erase(connection, connection.execute(_LOCK_INPUT, {"batch_id": batch_id}).scalars().all())


def erase(connection: Connection, file_ids: Sequence[str]) -> Sequence[str]:
    """Deletes those of these files, which the caller has locked, that no batch needs. Returns them."""
    # Asked anew, because a batch may have been submitted until the lock was there.
    return connection.execute(_ERASE, {"ids": list(file_ids)}).scalars().all() if file_ids else ()


def _measured(connection: Connection, marked: Marked) -> Discarded:
    values = {"batch_ids": list(marked.batch_ids), "file_ids": list(marked.file_ids)}
    row = connection.execute(_MEASURE, values).one()
    return Discarded(int(row.batches), int(row.lines), int(row.files), int(row.bytes))
