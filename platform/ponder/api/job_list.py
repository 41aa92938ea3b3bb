"""Lists the jobs of a batch, sorted and filtered, so that a page of a million jobs takes no longer than one of few."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from sqlalchemy import Connection, Row, text
from sqlalchemy.exc import DBAPIError

from ponder.api.job_object import COMPLETION_TOKENS, IS_RUNNING, OUTCOME, job_summary
from ponder.domain.state import BatchState, JobState, Verdict
from ponder.domain.storable import JsonObject
from ponder.errors import InvalidInput, NotFound
from ponder.store.job_state import JOB_STATE

_PATIENCE = text("SET LOCAL statement_timeout = '3s'")
_CANCELED = "57014"
"""The SQLSTATE of a statement that took too long."""

SortKey = Literal["line", "custom_id", "tokens", "cost"]
Order = Literal["asc", "desc"]

_STOPPED_AS = {
    BatchState.CANCELLING: JobState.CANCELLED,
    BatchState.CANCELLED: JobState.CANCELLED,
    BatchState.EXPIRED: JobState.EXPIRED,
}
_KEYS: dict[SortKey, tuple[str, ...]] = {
    "line": ("line",),
    "custom_id": ("custom_id",),
    "tokens": ("tokens", "line"),
    "cost": ("nanodollars", "line"),
}
"""Columns that order the jobs of a batch, each with an index."""
_FILTERS = {
    "state": "state = :state",
    "states": "state = ANY(CAST(:states AS text[]))",
    "verdict": "verdict = :verdict",
    "level": "level = :level",
    "custom_id": "custom_id = :custom_id",
    "custom_id_prefix": "custom_id ^@ :custom_id_prefix",
    "min_tokens": "tokens >= :min_tokens",
    "max_tokens": "tokens <= :max_tokens",
    "min_nanodollars": "nanodollars >= :min_nanodollars",
    "max_nanodollars": "nanodollars <= :max_nanodollars",
}
_OF_COSTS = {"tokens", "cost", "min_tokens", "max_tokens", "min_nanodollars", "max_nanodollars"}
_OF_CUSTOM_IDS = {"custom_id", "custom_id_prefix"}
_JOBS = "(SELECT *, id AS job_id FROM jobs WHERE batch_id = :batch_id AND tenant_id = :tenant_id) AS listed"
_COSTS = "(SELECT * FROM settled_jobs WHERE batch_id = :batch_id) AS listed"
_COSTS_WITH_CUSTOM_IDS = """
    (SELECT settled_jobs.*, custom_id FROM settled_jobs JOIN jobs ON jobs.id = job_id
     WHERE settled_jobs.batch_id = :batch_id AND tenant_id = :tenant_id) AS listed"""
_PAGE = f"""
    WITH chosen AS MATERIALIZED (
        SELECT job_id, {{keys}} FROM {{source}} WHERE {{filters}} ORDER BY {{ordered}} LIMIT :limit
    )
    SELECT jobs.id, jobs.batch_id, jobs.custom_id, jobs.line, jobs.model, jobs.fingerprint,
           {JOB_STATE} AS current_state, {IS_RUNNING}, verdict, checked, jobs.judged, jobs.oracle,
           strategy, level, jobs.created_at,
           settled_at, traceparent, {OUTCOME}, {COMPLETION_TOKENS},
           (SELECT coalesce(sum(nanodollars), 0) FROM ledger_entries WHERE job_id = jobs.id) AS direct_nanodollars
    FROM chosen JOIN jobs ON jobs.id = chosen.job_id JOIN batches ON batches.id = jobs.batch_id
    LEFT JOIN results ON results.job_id = jobs.id LEFT JOIN usage ON usage.job_id = jobs.id
    WHERE jobs.tenant_id = :tenant_id ORDER BY {{ordered_chosen}}"""


@dataclass(frozen=True, slots=True)
class JobChoice:
    """The jobs of a batch that are listed, and their order. None does not filter.

    A job has tokens and a cost here once it has settled and the dispatcher has added them up.
    """

    state: JobState | None = None
    verdict: Verdict | None = None
    level: str | None = None
    custom_id: str | None = None
    custom_id_prefix: str | None = None
    min_tokens: int | None = None
    max_tokens: int | None = None
    min_nanodollars: int | None = None
    max_nanodollars: int | None = None
    sort: SortKey = "line"
    order: Order = "asc"

    def filters(self, batch_state: str) -> Mapping[str, Any]:
        """Returns the values of the filters, by their name in `_FILTERS`. A stopped batch's rows may follow later."""
        values = {name: getattr(self, name) for name in _FILTERS if name != "states"}
        stopped_as = _STOPPED_AS.get(BatchState(batch_state))
        if stopped_as is not None and self.state in (stopped_as, JobState.PENDING):
            states = [stopped_as.value, JobState.PENDING.value] if self.state is stopped_as else []
            values |= {"state": None, "states": states}
        return {name: value for name, value in values.items() if value is not None}


def job_list(
    connection: Connection, batch: Row[Any], choice: JobChoice, after: int | None, limit: int
) -> list[JsonObject]:
    """Returns up to `limit` jobs of a batch, after the one with the number `after`.

    Raises NotFound for a cursor that has no place in this order, and InvalidInput for filters that take too long.
    """
    filters = choice.filters(batch.state)
    source = _source({choice.sort, *filters})
    values = {**filters, "batch_id": batch.id, "tenant_id": batch.tenant_id, "after": after, "limit": limit}
    conditions = [_FILTERS[name] for name in filters]
    connection.execute(_PATIENCE)
    try:
        if after is not None:
            values |= _cursor(connection, source, choice, values)
            conditions.append(_beyond(choice))
        rows = connection.execute(text(_query(source, choice, conditions)), values).all()
    except DBAPIError as error:
        raise _too_slow(error) from None
    return [job_summary(row, int(row.direct_nanodollars)) for row in rows]


def _source(names: set[str]) -> str:
    if not names & _OF_COSTS:
        return _JOBS
    return _COSTS_WITH_CUSTOM_IDS if names & _OF_CUSTOM_IDS else _COSTS


def _cursor(connection: Connection, source: str, choice: JobChoice, values: Mapping[str, Any]) -> Mapping[str, Any]:
    """Returns the place of the job after which the page begins."""
    keys = _KEYS[choice.sort]
    line = "(SELECT line FROM jobs WHERE id = :after AND batch_id = :batch_id)"
    row = connection.execute(text(f"SELECT {', '.join(keys)} FROM {source} WHERE line = {line}"), values).first()
    if row is None:
        raise NotFound("this list has no object with the id in `after`", param="after")
    return {f"after_{key}": value for key, value in zip(keys, row, strict=True)}


def _beyond(choice: JobChoice) -> str:
    """Compares with values and not with a query, so that an index finds the place however deep it is."""
    keys = _KEYS[choice.sort]
    casts = {"custom_id": "text", "line": "int"}
    places = (f"CAST(:after_{key} AS {casts.get(key, 'bigint')})" for key in keys)
    return f"({', '.join(keys)}) {'>' if choice.order == 'asc' else '<'} ({', '.join(places)})"


def _query(source: str, choice: JobChoice, conditions: Sequence[str]) -> str:
    keys = _KEYS[choice.sort]
    return _PAGE.format(
        keys=", ".join(keys),
        source=source,
        filters=" AND ".join(conditions) or "true",
        ordered=", ".join(f"{key} {choice.order}" for key in keys),
        ordered_chosen=", ".join(f"chosen.{key} {choice.order}" for key in keys),
    )


def _too_slow(error: DBAPIError) -> Exception:
    """Returns the error of filters that took too long, or else the same error."""
    details = error.orig.args[0] if error.orig and error.orig.args else None
    if not isinstance(details, dict) or details.get("C") != _CANCELED:
        return error
    return InvalidInput(
        "these filters take too long in a batch of this size: use fewer of them, or another order",
        param="sort",
        code="list_too_slow",
    )
