"""The main loop of the engine process: steps, search coroutines and the parent's commands take turns."""

from __future__ import annotations

import asyncio
import os
import signal
from collections import deque
from collections.abc import Collection, Mapping
from dataclasses import replace
from enum import Enum, auto
from multiprocessing.connection import Connection

from ponder.domain.state import Lane
from ponder_worker.engine_process.engine_core import EngineCore
from ponder_worker.engine_process.job import Job
from ponder_worker.engine_process.job_result import unreadable
from ponder_worker.engine_process.learned import Learned
from ponder_worker.engine_process.loading.engine_options import EngineOptions
from ponder_worker.engine_process.loading.engines import Engines
from ponder_worker.engine_process.parent_pipe import ParentPipe, Questions
from ponder_worker.engine_process.work_book import IdleTime
from ponder_worker.protocol import (
    Admit,
    AdmittedJob,
    Command,
    Document,
    Drain,
    Drop,
    End,
    EndedSpan,
    HandOn,
    JobResult,
    Learn,
    Ready,
    Report,
    ReportRequest,
    Sums,
    Verdict,
)

_ADMIT_PER_STEP = 16
_ORPHAN_S = 10.0


class _Phase(Enum):
    STEPPING = auto()
    STOPPED = auto()
    """After a SIGTERM: reports are still sent, but nothing is computed."""
    DRAINED = auto()
    """The last report is sent, and the process exits."""


class Loop:
    """Owns every job of this process. A step runs synchronously; coroutines continue when their completions arrive."""

    def __init__(self, pipe: Connection, engines: Engines, options: EngineOptions) -> None:
        self._pipe = ParentPipe(pipe)
        self._engines = engines
        self._options = options
        self._wake = asyncio.Event()
        self._core = EngineCore(engines, self._wake.set, speculates=options.speculation)
        self._questions = Questions(self._pipe.send)
        self._learned = Learned()
        self._jobs: dict[int, Job] = {}
        self._arrived: deque[AdmittedJob] = deque()
        self._results: list[JobResult] = []
        self._handed_on: list[HandOn] = []
        self._deltas: dict[int, Document] = {}
        """The last deltas of finished jobs: until they settle, another worker would continue from their trees."""
        self._spans: list[EndedSpan] = []
        self._num_steps_reported = 0
        self._idle_time = IdleTime()
        self._phase = _Phase.STEPPING
        self._error: Exception | None = None
        self._check_is_due = False

    async def run(self) -> None:
        """Returns once drained. Raises whatever bug of ours ended it; the parent notices the death of the process."""
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, self._stop)
        self._pipe.start(self._obey, self._fail)
        self._pipe.send(self._ready())
        try:
            while self._phase is not _Phase.DRAINED:
                await self._turn()
        finally:  # a bug must not hold back what was already reported
            self._pipe.flush()

    async def _turn(self) -> None:
        if self._phase is _Phase.STEPPING and (self._arrived or self._core.has_work):
            self._start_jobs()
            self._step()
            await asyncio.sleep(0)
        else:
            self._check()
            await self._rest()
        if self._error is not None:
            raise self._error

    def _step(self) -> None:
        if not self._core.has_work:
            return
        self._core.step()
        self._check_is_due = True
        for job in list(self._jobs.values()):
            job.look()

    def _check(self) -> None:
        """Looks for lost pages once all work has ended and is reported. Raises AssertionError."""
        if (
            self._check_is_due
            and self._phase is _Phase.STEPPING
            and not (self._jobs or self._results or self._handed_on)
        ):
            self._check_is_due = False
            self._core.check()

    async def _rest(self) -> None:
        """Sleeps until a command or an order arrives. Coroutines that have just become ready run meanwhile."""
        self._idle_time.begin()
        self._wake.clear()
        await self._wake.wait()
        self._idle_time.end()

    def _start_jobs(self) -> None:
        """Starts a few jobs between two steps: encoding a prompt takes time, for which the others wait."""
        for _ in range(min(_ADMIT_PER_STEP, len(self._arrived))):
            admitted = self._arrived.popleft()
            try:
                job = Job(
                    admitted, self._core, self._questions, self._learned, self._finish, on_span=self._spans.append
                )
            except Exception as error:  # whatever it is, the other jobs go on
                self._results.append(unreadable(admitted.job_id, error))
                continue
            self._jobs[job.id] = job
            job.start()

    def _finish(self, job: Job) -> None:
        del self._jobs[job.id]
        if (pin := job.next_stage) is not None:
            self._deltas[job.id] = job.last_delta()
            self._handed_on.append(HandOn(job.id, pin.model, pin.fingerprint))
            return
        if (delta := job.delta()) is not None:
            self._deltas[job.id] = delta
        self._results.append(job.result())

    def _fail(self, error: Exception) -> None:
        self._error = error
        self._wake.set()

    def _stop(self) -> None:
        """Answers a SIGTERM to this process alone: the parent still gets its reports, and has a while to drain it."""
        if self._phase is _Phase.STEPPING:
            self._phase = _Phase.STOPPED
        asyncio.get_running_loop().call_later(_ORPHAN_S, os._exit, 1)

    def _obey(self, command: Command) -> None:
        match command:
            case Admit():
                self._admit(command)
            case Learn():
                self._learn(command.learned)
            case Drop():
                self._drop(set(command.job_ids))
            case End():
                self._end(command.reasons)
            case Verdict():
                self._questions.answer(command)
            case ReportRequest():
                self._pipe.send(self._report(is_last=False))
            case Drain():
                self._phase = _Phase.DRAINED
                self._pipe.send(self._report(is_last=True))
        self._wake.set()

    def _admit(self, command: Admit) -> None:
        """Queues the jobs that are not here yet, interactive ones before all others."""
        here = self._jobs.keys() | {result.job_id for result in self._results}
        here |= {one.job_id for one in self._handed_on}
        arrived = {job.job_id: job for job in command.jobs if job.job_id not in here}
        arrived |= {job.job_id: job for job in self._arrived}  # one that waits already may have been told to end
        self._arrived = deque(sorted(arrived.values(), key=lambda job: job.lane is not Lane.INTERACTIVE))
        self._learn(command.learned)
        self._learned.take_former(command.former)
        self._core.clock_s = command.clock_s

    def _learn(self, learned: Mapping[str, Sums]) -> None:
        arrived = {job.batch_id for job in self._arrived}
        self._learned.take(learned, arrived | {job.batch_id for job in self._jobs.values()})

    def _drop(self, job_ids: Collection[int]) -> None:
        for job_id in job_ids & self._jobs.keys():
            self._jobs.pop(job_id).drop()
        self._arrived = deque(job for job in self._arrived if job.job_id not in job_ids)
        self._results = [result for result in self._results if result.job_id not in job_ids]
        self._handed_on = [one for one in self._handed_on if one.job_id not in job_ids]
        self._deltas = {job_id: delta for job_id, delta in self._deltas.items() if job_id not in job_ids}

    def _end(self, reasons: Mapping[int, str]) -> None:
        """Ends jobs by a limit; for one that has not started yet, the limit is written into its tree."""
        self._arrived = deque(
            replace(job, deltas=(*job.deltas, {"ended": reasons[job.job_id]})) if job.job_id in reasons else job
            for job in self._arrived
        )
        for job_id in reasons.keys() & self._jobs.keys():
            self._jobs[job_id].end(reasons[job_id])

    def _ready(self) -> Ready:
        return Ready(
            fingerprint=self._engines.fingerprint,
            context_length=self._engines.longest,
            has_reward_model=self._engines.reward is not None,
            room_tokens=self._room_tokens,
        )

    def _report(self, *, is_last: bool) -> Report:
        if is_last:
            for job in self._jobs.values():
                job.close_spans()
        spans = tuple(self._spans)
        self._spans.clear()
        deltas = {job.id: delta for job in self._jobs.values() if (delta := job.delta()) is not None} | self._deltas
        results, handed_on = tuple(self._results), tuple(self._handed_on)
        self._deltas, self._results, self._handed_on = {}, [], []
        # Verdicts and prompts count as progress too: a search that only waits for one of them is not stuck.
        num_steps = self._core.num_steps + self._core.prompts.num_made + self._questions.num_answered
        num_new_steps, self._num_steps_reported = num_steps - self._num_steps_reported, num_steps
        return Report(
            num_steps=num_new_steps,
            awaits_verdicts=self._awaits_verdicts,
            work=self._core.take_work(),
            idle_fraction=self._idle_time.take_fraction(),
            deltas=deltas,
            results=results,
            room_tokens=self._room_tokens,
            num_jobs=len(self._jobs) + len(self._arrived),
            is_last=is_last,
            metrics=self._core.metrics(),
            handed_on=handed_on,
            spans=spans,
        )

    @property
    def _room_tokens(self) -> int:
        return self._core.room_tokens(len(self._arrived), self._options)

    @property
    def _awaits_verdicts(self) -> bool:
        """True if nothing can be computed before a verdict arrives."""
        is_busy = self._arrived or self._core.has_work
        return bool(self._jobs) and not is_busy and self._jobs.keys() <= self._questions.job_ids
