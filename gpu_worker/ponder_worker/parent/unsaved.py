"""What the engine reported and Postgres has not confirmed yet. Reports add up, so nothing is lost by waiting."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from ponder.jobs.tick import Settlement, Work

Kind = Literal["work", "recomputed", "speculated"]


@dataclass(slots=True)
class Unsaved:
    """`elapsed_s` is the time that the reports cover and `idle_s` the part of it in which nothing was runnable.

    waits: at the last report all searches waited for verdicts.
    """

    progressed: bool = False
    elapsed_s: float = 0.0
    idle_s: float = 0.0
    work: dict[tuple[int, Kind], float] = field(default_factory=dict)
    deltas: dict[int, list[dict[str, Any]]] = field(default_factory=dict)
    settled: dict[int, Settlement] = field(default_factory=dict)
    waits: bool = False

    def add_report(self, report: Mapping[str, Any], elapsed_s: float) -> None:
        """One report of the engine process, see `engine_process`; what it finished is settled separately."""
        self.progressed = self.progressed or report["steps"] > 0 or report["num_jobs"] == 0
        self.waits = report["waits"]
        self.elapsed_s += elapsed_s
        self.idle_s += elapsed_s * report["idle_fraction"]
        for entry in report["work"]:
            self._add_work(int(entry["job_id"]), entry["kind"], entry["weight"])
        for job_id, deltas in report["deltas"].items():
            self.deltas.setdefault(int(job_id), []).extend(deltas)

    def settle(self, settlement: Settlement) -> None:
        """Progress, too, where searches wait for their turn behind it."""
        self.progressed = self.progressed or self.waits
        self.settled[settlement.job_id] = settlement

    def forget(self, job_ids: Iterable[int]) -> None:
        """Jobs that are not ours any more keep their work, which is paid for, and lose everything else."""
        for job_id in job_ids:
            self.deltas.pop(job_id, None)
            self.settled.pop(job_id, None)

    @property
    def idle_fraction(self) -> float:
        return min(1.0, self.idle_s / self.elapsed_s) if self.elapsed_s > 0 else 0.0

    @property
    def works(self) -> list[Work]:
        return [Work(job_id=job_id, weight=weight, kind=kind) for (job_id, kind), weight in self.work.items()]

    @property
    def unsettled_deltas(self) -> dict[int, list[dict[str, Any]]]:
        """Without those of jobs that settle now: their whole tree is in the settlement."""
        return {job_id: deltas for job_id, deltas in self.deltas.items() if deltas and job_id not in self.settled}

    def _add_work(self, job_id: int, kind: Kind, weight: float) -> None:
        self.work[job_id, kind] = self.work.get((job_id, kind), 0.0) + weight
