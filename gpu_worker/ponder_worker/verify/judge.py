"""Judging many cases at once, none of which can hold up or bring down another."""

from __future__ import annotations

import queue
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from ponder.domain.state import Verdict
from ponder_worker.verify.case import Case, Judgement
from ponder_worker.verify.examine import examine, is_pure
from ponder_worker.verify.examiner import Examiner


class Judge:
    """May be called from any thread, and never raises for a case. Processes are started when they are first needed."""

    def __init__(self, *, num_processes: int = 2, limit_s: float = 10.0) -> None:
        self._limit_s = limit_s
        self._free: queue.LifoQueue[Examiner | None] = queue.LifoQueue()
        for _ in range(num_processes):
            self._free.put(None)
        # A process ends with the thread that started it, so one thread starts them all and stays.
        self._starter = ThreadPoolExecutor(1, thread_name_prefix="examiner-starter")
        self._callers = ThreadPoolExecutor(num_processes, thread_name_prefix="examiner-caller")

    def __call__(self, verifier: Mapping[str, Any] | None, answer: str | None, reference: str | None) -> Verdict:
        return self.examine(Case(verifier, answer, reference)).verdict

    def examine(self, case: Case) -> Judgement:
        if is_pure(case):
            return _guarded(case)
        return self._examine_apart(case)

    def examine_all(self, cases: Sequence[Case]) -> list[Judgement]:
        """In the order of the cases; those that need a process share all of them."""
        costly = [i for i, case in enumerate(cases) if not is_pure(case)]
        apart = {i: self._callers.submit(self._examine_apart, cases[i]) for i in costly}
        return [apart[i].result() if i in apart else _guarded(case) for i, case in enumerate(cases)]

    def close(self) -> None:
        """Ends the processes once they are free; no case comes after it."""
        self._callers.shutdown()
        while not self._free.empty():
            examiner = self._free.get()
            if examiner is not None:
                examiner.close()
        self._starter.shutdown()

    def _examine_apart(self, case: Case) -> Judgement:
        examiner = self._free.get()
        try:
            if examiner is None or not examiner.is_alive:
                examiner = self._starter.submit(Examiner).result()
            return examiner.examine(case, self._limit_s)
        except Exception as error:
            return Judgement(Verdict.FAILED, f"the verifier could not be started: {type(error).__name__}")
        finally:
            self._free.put(examiner)


def _guarded(case: Case) -> Judgement:
    try:
        return examine(case)
    except Exception as error:
        return Judgement(Verdict.FAILED, f"the verifier raised {type(error).__name__}")
