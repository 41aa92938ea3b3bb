"""Runs a suite: cell after cell, so that each has the workers to itself."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

import ponder
from ponder.bench.arrivals import arrival_times
from ponder.bench.bench_run import BenchRun, CellFigures, figures_of, records_of
from ponder.bench.driver import BatchRefused, Driver
from ponder.bench.figures.grades import Grades
from ponder.bench.grid import Cell, cells
from ponder.bench.job_record import JobRecord
from ponder.bench.paired import Difference, difference_of
from ponder.bench.problem_set import Problem, read_problems
from ponder.bench.suite import Suite, WorkerSetting
from ponder.client import Client
from ponder.errors import InvalidInput, PonderError, SetupError

Stack = Callable[[WorkerSetting | None], AbstractContextManager[Client]]
"""A client of workers with a setting, for as long as the context lasts; None: of those that are there."""
Tell = Callable[[str, int, int], None]
"""Is told which cell runs, and how many of its jobs have settled."""
_SEED = 0
"""Draws arrivals, the same in every run."""


@dataclass(frozen=True, slots=True)
class _Measured:
    cell: Cell
    batch_ids: Sequence[str]
    records: Sequence[JobRecord]


@dataclass(slots=True)
class Execution:
    """A suite being run. `folder`: where its paths begin. `most_problems`: of each data set, for a quick look."""

    suite: Suite
    folder: Path
    stack: Stack
    tell: Tell
    most_problems: int | None = None
    clock: Callable[[], float] = time.time
    _measured: list[_Measured] = field(default_factory=list)
    _skipped: dict[str, str] = field(default_factory=dict)

    def run(self) -> tuple[str | PonderError, BenchRun]:
        """Runs every cell, keeps the run in Postgres, and returns its id and the run.

        In place of the id comes the error if the run cannot be kept: what was measured must not be lost with it.
        Raises InvalidInput for data that cannot be read, before anything is started.
        """
        problems = {data.name: read_problems(data, self.folder, self.most_problems) for data in self.suite.data}
        began_at = self.clock()
        settings: Sequence[WorkerSetting | None] = self.suite.workers or (None,)
        started: list[WorkerSetting | None] = []
        for setting in settings:
            with ExitStack() as running:
                client = self._start(running, setting)
                if client is None:
                    continue
                started.append(setting)
                self._run_cells(client, setting, problems)
                if setting is settings[-1]:
                    return self._finish(client, problems, began_at)
        if not started:
            raise SetupError(f"no worker could be started: {next(iter(self._skipped.values()))}")
        with self.stack(started[-1]) as client:
            return self._finish(client, problems, began_at)

    def _start(self, running: ExitStack, setting: WorkerSetting | None) -> Client | None:
        """Returns a client of workers with a setting, or None for a setting that this machine cannot run."""
        try:
            return running.enter_context(self.stack(setting))
        except SetupError as error:
            if setting is None:
                raise
            self._skipped[setting.name] = error.args[0]
            return None

    def _run_cells(
        self, client: Client, setting: WorkerSetting | None, problems: Mapping[str, Sequence[Problem]]
    ) -> None:
        """Runs the cells of a setting. One that is refused is left out, because the others may have taken hours."""
        for model in self._models(client):
            for cell in cells(self.suite, model, None if setting is None else setting.name):
                try:
                    self._measured.append(self._run_cell(client, cell, problems[cell.data.name]))
                except BatchRefused as error:
                    self._skipped[cell.key.label] = error.args[0]

    def _finish(
        self, client: Client, problems: Mapping[str, Sequence[Problem]], began_at: float
    ) -> tuple[str | PonderError, BenchRun]:
        """Reads the bill, which is right only after the last cell, over all of which overhead is spread."""
        if not self._measured:
            raise BatchRefused(next(iter(self._skipped.values())))
        found = self._document(client, problems, began_at)
        try:
            return str(client.keep_bench_run(self.suite.name, found.model_dump(mode="json"))["id"]), found
        except PonderError as error:
            return error, found

    def _models(self, client: Client) -> Sequence[str]:
        """Returns the models to measure. Raises InvalidInput for one without a worker."""
        live = [model["id"] for model in client.models() if model["ponder"]["live_workers"]]
        wanted = self.suite.models if not self.suite.workers else ()
        missing = [name for name in wanted if name not in live]
        if missing or not live:
            known = f"models with one: {', '.join(live)}" if live else "no model has one"
            raise InvalidInput(f"no worker serves {missing[0] if missing else 'anything'} now ({known})", param="model")
        if not wanted and len(live) > 1:
            raise InvalidInput(f"several models have workers ({', '.join(live)}): name some with --model")
        return wanted or live

    def _run_cell(self, client: Client, cell: Cell, problems: Sequence[Problem]) -> _Measured:
        lines = [problem.line(cell.data, cell.model, seed) for seed in self.suite.seeds for problem in problems]
        times = arrival_times(cell.arrivals, len(lines), self.folder, Random(_SEED))  # noqa: S311
        label = cell.key.label
        driver = Driver(
            client,
            f"bench {self.suite.name}: {label}"[:500],
            cell.options,
            on_settled=lambda num: self.tell(label, num, len(lines)),
        )
        batch_ids = driver.run(lines, times, cell.concurrency)
        return _Measured(cell, batch_ids, records_of(client, batch_ids))

    def _document(self, client: Client, problems: Mapping[str, Sequence[Problem]], began_at: float) -> BenchRun:
        names = dict.fromkeys(one.cell.data.name for one in self._measured)
        grades = {name: self._grades(name, problems[name]) for name in names}
        figures = [self._figures(client, one, grades[one.cell.data.name]) for one in self._measured]
        return BenchRun(
            ponder=ponder.__version__,
            suite=self.suite,
            began_at=began_at,
            ended_at=self.clock(),
            cells=tuple(figures),
            differences=tuple(self._differences()),
            skipped=self._skipped,
        )

    def _grades(self, data: str, problems: Sequence[Problem]) -> Grades:
        measured = [one for one in self._measured if one.cell.data.name == data]
        verifier = measured[0].cell.options.get("verifier", {}).get("name")
        references = {problem.id: problem.reference for problem in problems}
        return Grades([job for one in measured for job in one.records], references, verifier)

    def _figures(self, client: Client, one: _Measured, grades: Grades) -> CellFigures:
        domain = one.cell.data.domain or one.cell.data.name
        return figures_of(client, one.cell.key, one.batch_ids, one.records, domain=domain, grades=grades)

    def _differences(self) -> Iterator[Difference]:
        """Compares every cell with the one of the first setting that is otherwise the same."""
        baseline = self._measured[0].cell.key
        for one in self._measured:
            key = one.cell.key
            for other in self._measured:
                first = other.cell.key
                is_baseline = (first.model, first.worker) == (baseline.model, baseline.worker)
                if is_baseline and first != key and first.is_comparable(key):
                    yield difference_of(first, other.records, key, one.records)
