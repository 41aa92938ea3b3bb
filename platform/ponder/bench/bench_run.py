"""A run of a suite: what was measured, as a document."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Literal

from pydantic import Field

from ponder.bench.figures.accuracy import Accuracy, accuracy_of
from ponder.bench.figures.grades import Grades
from ponder.bench.figures.interval_estimate import Estimate, bootstrap
from ponder.bench.figures.throughput import Point, Service, points_of, service_of
from ponder.bench.figures.user_times import UserTimes, user_times_of
from ponder.bench.grid import CellKey, short_labels
from ponder.bench.job_record import JobRecord
from ponder.bench.paired import Difference
from ponder.bench.suite import Part, Suite
from ponder.client import Client
from ponder.errors import PonderError
from ponder.wire import Json

_AFTER_S = 2.5
"""The load is sampled with a tick, so the last sample of a cell may come a tick after its end."""
_BATCHES_AT_A_TIME = 100


class Bill(Part):
    """The cost by the ledger, in nano-dollars: direct is engine time of jobs, loaded has its share of overhead.

    The overhead of an hour is known only when the hour has ended.
    """

    direct: int
    loaded: int
    direct_per_task: float
    loaded_per_task: float
    direct_per_success: Estimate
    loaded_per_success: float | None


class CellFigures(Part):
    """The figures of one cell. Its jobs are those of its batches."""

    key: CellKey
    domain: str
    began_at: float
    batch_ids: tuple[str, ...]
    accuracy: Accuracy
    service: Service
    user: UserTimes
    bill: Bill
    points: tuple[Point, ...]


class BenchRun(Part):
    """A run: its suite, the release of ponder that ran it, its cells, and how they differ from the first setting.

    `skipped`: why a setting of the workers could not be started, or a cell was refused, by its name or label.
    """

    version: Literal[1] = 1
    ponder: str
    suite: Suite
    began_at: float
    ended_at: float
    cells: tuple[CellFigures, ...]
    differences: tuple[Difference, ...] = ()
    skipped: dict[str, str] = Field(default_factory=dict)

    @property
    def labels(self) -> Mapping[CellKey, str]:
        """The labels of its cells, without what all of them have in common."""
        return short_labels([cell.key for cell in self.cells])


def records_of(client: Client, batch_ids: Sequence[str]) -> list[JobRecord]:
    """Returns the settled jobs of some batches. Raises PonderError if none has settled."""
    measured = client.measurements(batch_ids)
    found = [JobRecord.of(one) for one in measured if one["state"] in ("completed", "failed")]
    if not found:
        raise PonderError(f"no job of {', '.join(batch_ids)} has settled: `ponder watch {batch_ids[0]}` says why")
    return found


def samples_of(client: Client, records: Sequence[JobRecord], model: str) -> list[Json]:
    """Returns the samples of a model's workers while these jobs were there."""
    began_at, ended_at = min(one.submitted_at for one in records), max(one.settled_at for one in records)
    return [one for one in client.worker_samples(began_at, ended_at + _AFTER_S) if one["model"] == model]


def figures_of(
    client: Client,
    key: CellKey,
    batch_ids: Sequence[str],
    records: Sequence[JobRecord],
    *,
    domain: str,
    grades: Grades,
) -> CellFigures:
    samples = samples_of(client, records, key.model)
    began_at = min(one.submitted_at for one in records)
    return CellFigures(
        key=key,
        domain=domain,
        began_at=began_at,
        batch_ids=tuple(batch_ids),
        accuracy=accuracy_of(records, key.strategy.partition(" ")[0], grades),
        service=service_of(records, samples),
        user=user_times_of(records),
        bill=_bill(records, sum(_loaded(client, batch_ids))),
        points=points_of(samples, began_at),
    )


def _loaded(client: Client, batch_ids: Sequence[str]) -> Iterator[int]:
    for first in range(0, len(batch_ids), _BATCHES_AT_A_TIME):
        report = client.cost_report([], batch_ids[first : first + _BATCHES_AT_A_TIME])
        yield from (round(row["loaded_nanodollars"]) for row in report["data"])


def _bill(records: Sequence[JobRecord], loaded: int) -> Bill:
    """Returns the bill of settled jobs, whose loaded cost the platform's report says."""
    direct = sum(one.direct_nanodollars for one in records)
    num_passed = sum(one.has_passed for one in records)
    return Bill(
        direct=direct,
        loaded=loaded,
        direct_per_task=direct / len(records),
        loaded_per_task=loaded / len(records),
        direct_per_success=bootstrap(records, _per_success),
        loaded_per_success=loaded / num_passed if num_passed else None,
    )


def _per_success(records: Sequence[JobRecord]) -> float | None:
    num_passed = sum(one.has_passed for one in records)
    return sum(one.direct_nanodollars for one in records) / num_passed if num_passed else None
