"""Jobs over real engines, in this process."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

from ponder.domain.state import Lane
from ponder_worker.engine_process.engine_core import EngineCore
from ponder_worker.engine_process.job import Job
from ponder_worker.engine_process.learned import Learned
from ponder_worker.engine_process.parent_pipe import Questions
from ponder_worker.protocol import AdmittedJob, Document, JobResult

BEAM = {"name": "beam_search", "n": 4, "width": 2, "max_rounds": 5, "separator": "a"}


def admitted(job_id: int, *, deltas: Sequence[Document] = (), lane: Lane = Lane.BATCH, **changes: Any) -> AdmittedJob:
    """Makes an admitted job. changes: replace fields of the request."""
    request = {
        "messages": [{"role": "user", "content": "Compute 1 + 1."}],
        "sampling": {"temperature": 1.0, "max_tokens": 40, "seed": job_id, "stop": []},
        "strategy": BEAM,
        "budget": {},
    }
    return AdmittedJob(job_id, "a", "b", lane, request | changes, tuple(deltas))


def run(
    core: EngineCore, admitted: Sequence[AdmittedJob], after_step: Callable[[list[Job]], None] = lambda jobs: None
) -> list[JobResult]:
    """Returns the results of the jobs, in order of their ids."""
    done: list[Job] = []

    async def live() -> None:
        jobs = [
            Job(one, core, Questions(lambda ask: None), Learned(), done.append, on_span=lambda span: None)
            for one in admitted
        ]
        for job in jobs:
            job.start()
        for _ in range(5000):
            await asyncio.sleep(0)
            if len(done) == len(jobs):
                return
            for _ in range(5000):  # a grammar may be compiled in another thread
                if core.has_work or len(done) == len(jobs):
                    break
                await asyncio.sleep(0.001)
            if len(done) == len(jobs):
                return
            assert core.has_work, "everybody waits for something that nobody does"
            core.step()
            after_step(jobs)
            for job in jobs:
                job.look()
        raise AssertionError("endless")

    asyncio.run(live())
    core.engines.generator.step()  # what was cancelled gives its pages back
    core.check()
    return [job.result() for job in sorted(done, key=lambda job: job.id)]
