"""Reports: what is measured, in which view, over which jobs, and by which groups."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Row, text

from ponder.domain.dimension import DIMENSIONS, METADATA
from ponder.errors import InvalidInput
from ponder.ledger.cost_totals import IS_AGREED, IS_COMPARED

Group = dict[str, str | None]
"""The values of a row's dimensions, by name."""
Number = int | float | None

_COLUMNS = {name: name for name in DIMENSIONS} | {
    "tenant": "tenant_id",
    "key": "key_id",
    "batch": "batch_id",
    "day": "to_char(at AT TIME ZONE 'UTC', 'YYYY-MM-DD')",
    "hour": "to_char(at AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24\"Z\"')",
}
_CELL = frozenset(("strategy", "level", "model", "batch", "tenant", "key"))


@dataclass(frozen=True, slots=True)
class Selection:
    """The rows of a view that count, and how they are grouped.

    `tenant_id` and `batch_ids` None mean all. Money counts when it was booked. A job counts when it was settled, or
    while it is pending when it was submitted; from `since` on, and before `until`. `where`: a value by dimension.
    """

    by: tuple[str, ...] = ()
    tenant_id: str | None = None
    batch_ids: tuple[str, ...] | None = None
    since: datetime | None = None
    until: datetime | None = None
    where: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.since is not None and self.until is not None and self.since >= self.until:
            raise InvalidInput("since must be before until", param="since", code="invalid_value")

    @property
    def is_of_cells(self) -> bool:
        """Whether it neither groups nor chooses by anything in which jobs of a cell differ (see `cost_totals`)."""
        return self.since is None and self.until is None and _CELL.issuperset((*self.by, *self.where))

    @property
    def scope(self) -> Selection:
        """The tenant and the batches alone, which other tables have as well."""
        return Selection(tenant_id=self.tenant_id, batch_ids=self.batch_ids)

    @property
    def names(self) -> list[str]:
        return [f"group_{index}" for index in range(len(self.by))]

    @property
    def columns(self) -> str:
        """Returns the groups for a SELECT list, each with a comma behind it. No text of a user's is in it."""
        made = (self._column(name, f"by_{index}") for index, name in enumerate(self.by))
        return "".join(f"{column} AS {name}, " for column, name in zip(made, self.names, strict=True))

    @property
    def grouping(self) -> str:
        groups = ", ".join(self.names)
        return f"GROUP BY {groups} ORDER BY {groups}" if groups else ""

    @property
    def condition(self) -> str:
        conditions = ["true"]
        if self.tenant_id is not None:
            conditions.append("tenant_id = :tenant_id")
        if self.batch_ids is not None:
            conditions.append("batch_id = ANY(CAST(:batch_ids AS text[]))")
        if self.since is not None:
            conditions.append("at >= CAST(:since AS timestamptz)")
        if self.until is not None:
            conditions.append("at < CAST(:until AS timestamptz)")
        for index, name in enumerate(self.where):
            conditions.append(f"{self._column(name, f'field_{index}')} = CAST(:value_{index} AS text)")
        return " AND ".join(conditions)

    @property
    def values(self) -> Mapping[str, Any]:
        """Returns the parameters of `columns` and `condition`."""
        batch_ids = None if self.batch_ids is None else list(self.batch_ids)
        return (
            {"tenant_id": self.tenant_id, "batch_ids": batch_ids, "since": self.since, "until": self.until}
            | {f"by_{index}": name.removeprefix(METADATA) for index, name in enumerate(self.by)}
            | {f"field_{index}": name.removeprefix(METADATA) for index, name in enumerate(self.where)}
            | {f"value_{index}": value for index, value in enumerate(self.where.values())}
        )

    def group(self, row: Row[Any]) -> Group:
        return {name: getattr(row, column) for name, column in zip(self.by, self.names, strict=True)}

    def check_metadata(self, connection: Connection) -> None:
        """Raises InvalidInput for a field of the metadata that no job has, because it is probably misspelt."""
        for name in (*self.by, *self.where):
            if not name.startswith(METADATA):
                continue
            values = {"field": name.removeprefix(METADATA), **self.scope.values}
            if connection.execute(text(_HAS_FIELD.format(condition=self.scope.condition)), values).first() is None:
                raise InvalidInput(
                    f"no job has the metadata field {name.removeprefix(METADATA)!r}",
                    param="by" if name in self.by else "compare",
                    code="unknown_metadata",
                )

    @staticmethod
    def _column(name: str, parameter: str) -> str:
        return f"metadata ->> CAST(:{parameter} AS text)" if name.startswith(METADATA) else _COLUMNS[name]


_HAS_FIELD = """
    SELECT 1 FROM reported_jobs WHERE {condition} AND jsonb_exists(metadata, CAST(:field AS text)) LIMIT 1
"""

SPREAD = ("p50", "p95", "p99")


@dataclass(frozen=True, slots=True)
class Report:
    """A view, and what is measured of it. `spreads` are columns of which three percentiles are shown."""

    view: str
    measures: Mapping[str, str]
    spreads: tuple[str, ...] = ()

    @property
    def select(self) -> str:
        spreads = (f"percentile_cont(ARRAY[0.5, 0.95, 0.99]) WITHIN GROUP (ORDER BY {name})" for name in self.spreads)
        return ", ".join(
            [
                *(f"{sql} AS {name}" for name, sql in self.measures.items()),
                *(f"{sql} AS {name}" for name, sql in zip(self.spreads, spreads, strict=True)),
            ]
        )


def _share(condition: str, of: str = "true") -> str:
    """Returns SQL for the share of rows that fulfil the condition, null without any row."""
    return f"count(*) FILTER (WHERE {condition}) / nullif(CAST(count(*) FILTER (WHERE {of}) AS float8), 0)"


LATENCY = Report(
    "job_latencies",
    {"jobs": "count(*)"},
    ("queued_s", "first_token_s", "first_visible_token_s", "end_to_end_s", "token_s"),
)
QUALITY = Report(
    "job_quality",
    {
        "jobs": "count(*)",
        "passed": "count(*) FILTER (WHERE verdict = 'passed')",
        "failed": "count(*) FILTER (WHERE verdict = 'failed')",
        "unverified": "count(*) FILTER (WHERE verdict = 'unverified')",
        "validation_failure_rate": _share("verdict = 'failed'", "verdict IN ('passed', 'failed')"),
        "retry_rate": _share("num_rounds > 1"),
        "restart_rate": _share("num_attempts > 1"),
        "error_rate": _share("is_error"),
        "timeout_rate": _share("is_timeout"),
        "truncation_rate": _share("is_truncated"),
        "cache_hit_rate": "CAST(sum(cached_tokens) AS float8) / nullif(sum(prompt_tokens), 0)",
        "by_judge": "count(*) FILTER (WHERE judged)",
        "passed_by_judge": "count(*) FILTER (WHERE verdict = 'passed' AND judged)",
        "compared": f"count(*) FILTER (WHERE {IS_COMPARED})",
        "agreement": _share(IS_AGREED, IS_COMPARED),
    },
    ("prompt_tokens", "thinking_tokens", "answer_tokens"),
)


@dataclass(frozen=True, slots=True)
class ReportRow:
    """One group and its numbers. Those of a spread are called `…_p50` and so on."""

    group: Group
    numbers: Mapping[str, Number]


def report(connection: Connection, wanted: Report, selection: Selection) -> list[ReportRow]:
    """Returns one row per group, in order, or a single row without `by`; none where no job counts."""
    selection.check_metadata(connection)
    statement = f"""
        SELECT {selection.columns} {wanted.select} FROM {wanted.view} WHERE {selection.condition} {selection.grouping}
    """
    rows = connection.execute(text(statement), selection.values).all()
    return [ReportRow(selection.group(row), dict(_numbers(wanted, row))) for row in rows if row.jobs]


@dataclass(frozen=True, slots=True)
class WasteRow:
    """One kind of use of a group's money: the amount, exactly, and its share."""

    group: Group
    kind: str
    nanodollars: int
    share: float


def waste_report(connection: Connection, selection: Selection) -> list[WasteRow]:
    """Returns the uses of each group's money, the largest first. They add up to what was booked, to the nano-dollar."""
    selection.check_metadata(connection)
    groups = ", ".join([*selection.names, "kind"])
    statement = f"""
        SELECT {selection.columns} kind, CAST(sum(nanodollars) AS bigint) AS nanodollars FROM waste_entries
        WHERE {selection.condition} GROUP BY {groups} ORDER BY {groups}
    """
    rows = connection.execute(text(statement), selection.values).all()
    totals: dict[tuple[str | None, ...], int] = {}
    for row in rows:
        key = tuple(selection.group(row).values())
        totals[key] = totals.get(key, 0) + row.nanodollars
    made = [
        WasteRow(group, row.kind, row.nanodollars, row.nanodollars / (totals[tuple(group.values())] or 1))
        for row in rows
        for group in [selection.group(row)]
    ]
    order = {key: index for index, key in enumerate(totals)}
    return sorted(made, key=lambda row: (order[tuple(row.group.values())], -row.nanodollars))


def _numbers(wanted: Report, row: Row[Any]) -> Iterable[tuple[str, Number]]:
    for name in wanted.measures:
        yield name, getattr(row, name)
    for name in wanted.spreads:
        for percentile, value in zip(SPREAD, getattr(row, name) or [None] * len(SPREAD), strict=True):
            yield f"{name}_{percentile}", None if value is None else float(value)
