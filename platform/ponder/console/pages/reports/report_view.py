"""Pages of reports: the filters in their address, so that they can be linked, and their tables as CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any
from urllib.parse import urlencode

from fastapi import Depends, Query
from markupsafe import Markup
from starlette.responses import Response

from ponder.api.routes.batches import get_batch, list_batches
from ponder.api.routes.measuring.day_spending import spending
from ponder.api.routes.reports import cost, read_selection
from ponder.api.routes.tenants import list_tenants
from ponder.api.services import Services
from ponder.console.plot import Axis, Point, Series, scatter_plot
from ponder.console.session import Visitor
from ponder.domain.storable import JsonObject
from ponder.ledger.reporting import Selection

_OFFERED = 50
"""The most batches that a filter offers. Others can be named in the address."""
SHOWN = 40
"""The most rows of a table or plot. Its file has all of them."""
STYLES = tuple(f"series-{number}" for number in range(1, 7))
_FORMULA = ("=", "+", "-", "@", "\t", "\r")
"""A text that begins so would be computed by a spreadsheet."""


@dataclass(frozen=True, slots=True)
class ReportFilter:
    """The filters of a page, as they stand in its address. An empty text filters nothing."""

    batch: str
    tenant: str
    since: str
    until: str

    def select(self, visitor: Visitor, by: str = "") -> Selection:
        """Returns what reports take. Raises InvalidInput, and Forbidden for another tenant."""
        return read_selection(
            caller=visitor.viewed,
            by=by,
            batch_id=[self.batch] if self.batch else None,
            tenant=self.tenant or None,
            since=self.since or None,
            until=self.until or None,
        )

    def check(self, ponder: Services, visitor: Visitor) -> None:
        """Raises what `select` does, and NotFound for a batch that is not the chosen tenant's."""
        selection = self.select(visitor)
        if self.batch and selection.tenant_id == visitor.viewed.tenant_id:
            get_batch(self.batch, ponder, visitor.viewed)

    def query(self, **more: str) -> str:
        """Returns the part of an address that says the same, and more."""
        own = {"batch": self.batch, "tenant": self.tenant, "since": self.since, "until": self.until}
        return urlencode({name: value for name, value in (own | more).items() if value})


def _filter(
    batch: Annotated[str, Query(max_length=100)] = "",
    tenant: Annotated[str, Query(max_length=100)] = "",
    since: Annotated[str, Query(max_length=40)] = "",
    until: Annotated[str, Query(max_length=40)] = "",
) -> ReportFilter:
    return ReportFilter(batch.strip(), tenant.strip(), since.strip(), until.strip())


Filtered = Annotated[ReportFilter, Depends(_filter)]


@dataclass(frozen=True, slots=True)
class Choices:
    """The batches and tenants that filters offer. Only an operator who looks at the own tenant may choose another."""

    batches: list[JsonObject]
    tenants: list[JsonObject]

    @classmethod
    def of(cls, ponder: Services, visitor: Visitor) -> Choices:
        caller = visitor.viewed
        tenants = list_tenants(ponder, caller)["data"] if caller.is_operator else []
        return cls(list_batches(ponder, caller, limit=_OFFERED)["data"], tenants)


def day_rows(ponder: Services, visitor: Visitor, chosen: ReportFilter) -> Sequence[JsonObject]:
    """Returns what was spent by day and tenant. No sums by day are kept of single batches."""
    rows: Sequence[JsonObject]
    if chosen.batch:
        rows = cost(ponder, visitor.viewed, chosen.select(visitor, "day,tenant"))["data"]
    else:
        rows = spending(
            ponder,
            visitor.viewed,
            by="day,tenant",
            tenant=chosen.tenant or None,
            since=chosen.since or None,
            until=chosen.until or None,
        )["data"]
    return rows


def frontier_plot(title: str, points: Sequence[Point], x: Axis, styles: Mapping[str, str]) -> Markup:
    """Draws accuracies over costs, and a line along those that no cheaper one reaches, which alone have labels.

    `styles` are those of the legend, by name.
    """
    best: list[Point] = []
    for point in sorted(points, key=lambda one: (one.x, -one.y)):
        if not best or point.y > best[-1].y:
            best.append(point)
    shown = [replace(point, is_labelled=point in best) for point in points]
    legend = [Series(name, (), style) for name, style in styles.items()]
    accuracy = Axis("accuracy", lambda value: f"{value:.0%}")
    return scatter_plot(title, shown, x, accuracy, frontier=best, styles=legend)


def csv_answer(name: str, rows: Iterable[Mapping[str, Any]]) -> Response:
    """Answers with a file of a line for each row, whose columns are the fields of the API."""
    rows = list(rows)
    target = io.StringIO()
    writer = csv.DictWriter(target, fieldnames=list(rows[0]) if rows else [], lineterminator="\n")
    writer.writeheader()
    writer.writerows({field: _harmless(value) for field, value in row.items()} for row in rows)
    return Response(
        target.getvalue(),
        media_type="text/csv; charset=utf-8",
        headers={"Content-Disposition": f'attachment; filename="ponder-{name}.csv"'},
    )


def _harmless(value: Any) -> Any:
    return f"'{value}" if isinstance(value, str) and value.startswith(_FORMULA) else value
