"""Jobs over real engines, in this process."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from ponder_worker.engine_process.engine_core import EngineCore
from ponder_worker.engine_process.job import Job
from ponder_worker.engine_process.learned import Learned
from ponder_worker.engine_process.questions import Questions

BEAM = {"name": "beam_search", "n": 4, "width": 2, "max_rounds": 5, "separator": "a"}


def admitted(job_id: int, **changes: Any) -> dict[str, Any]:
    request = {
        "messages": [{"role": "user", "content": "Compute 1 + 1."}],
        "sampling": {"temperature": 1.0, "max_tokens": 40, "seed": job_id, "stop": []},
        "strategy": BEAM,
        "budget": {},
    }
    return {"job_id": job_id, "tenant_id": "a", "request": request | changes}


def run(
    core: EngineCore, documents: list[dict[str, Any]], after_step: Callable[[list[Job]], None] = lambda jobs: None
) -> list[dict[str, Any]]:
    """-> what the jobs finished with, in order of their ids."""
    done: list[Job] = []

    async def live() -> None:
        jobs = [Job(document, core, Questions(lambda message: None), Learned(), done.append) for document in documents]
        for job in jobs:
            job.start()
        for _ in range(5000):
            await asyncio.sleep(0)
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
    return [job.finished() for job in sorted(done, key=lambda job: job.id)]
