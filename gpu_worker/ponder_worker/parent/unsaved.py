"""The part of the engine's reports that Postgres has not confirmed yet."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from ponder.jobs.tick_report import NextStage, Settlement, Work, WorkKind
from ponder_worker.protocol import Document, Report

_WorkKey = tuple[int, WorkKind]


@dataclass(slots=True)
class Unsaved:
    """Reports added up, so that nothing is lost by waiting.

    elapsed_s: the time that the reports cover. idle_s: the part of it in which nothing was runnable.
    awaits_verdicts: at the last report, all searches waited for verdicts.
    """

    progressed: bool = False
    elapsed_s: float = 0.0
    idle_s: float = 0.0
    work: dict[_WorkKey, Work] = field(default_factory=dict)
    deltas: dict[int, list[Document]] = field(default_factory=dict)
    settled: dict[int, Settlement] = field(default_factory=dict)
    handed_on: dict[int, NextStage] = field(default_factory=dict)
    awaits_verdicts: bool = False

    def add_report(self, report: Report, elapsed_s: float) -> None:
        """Adds everything but the results, which are settled separately."""
        self.progressed = self.progressed or report.num_steps > 0 or report.num_jobs == 0
        self.awaits_verdicts = report.awaits_verdicts
        self.elapsed_s += elapsed_s
        self.idle_s += elapsed_s * report.idle_fraction
        for work in report.work:
            self._add_work(work)
        for job_id, delta in report.deltas.items():
            self.deltas.setdefault(job_id, []).append(delta)
        for one in report.handed_on:
            self.handed_on[one.job_id] = NextStage(one.model, one.fingerprint)

    def settle(self, settlement: Settlement) -> None:
        """Counts as progress where searches wait for their turn behind it."""
        self.progressed = self.progressed or self.awaits_verdicts
        self.settled[settlement.job_id] = settlement

    def forget(self, job_ids: Iterable[int]) -> None:
        """Forgets jobs that are no longer held here, except for their work, which has to be paid for."""
        for job_id in job_ids:
            self.deltas.pop(job_id, None)
            self.settled.pop(job_id, None)
            self.handed_on.pop(job_id, None)

    @property
    def idle_fraction(self) -> float:
        return min(1.0, self.idle_s / self.elapsed_s) if self.elapsed_s > 0 else 0.0

    @property
    def unsettled_deltas(self) -> dict[int, list[Document]]:
        """Leaves out jobs that settle now: their whole tree is in the settlement."""
        return {job_id: deltas for job_id, deltas in self.deltas.items() if job_id not in self.settled}

    def _add_work(self, work: Work) -> None:
        key = (work.job_id, work.kind)
        before = self.work[key].weight if key in self.work else 0.0
        self.work[key] = Work(work.job_id, before + work.weight, work.kind)
