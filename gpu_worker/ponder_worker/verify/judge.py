"""Judges many cases at once. None of them can hold up or bring down another."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Hashable
from concurrent.futures import Future, ThreadPoolExecutor

from ponder.domain.state import Verdict
from ponder_worker.verify.case import Case, Judgement
from ponder_worker.verify.examine import VERIFIERS, examine, is_pure, runs_code, unfinished
from ponder_worker.verify.examiner import Examiner, ExaminerDied, live
from ponder_worker.verify.sandbox.fork_server import ForkServer
from ponder_worker.verify.turns import Turns

_NO_CODE = "this worker runs no code: its operator has not allowed it (ponder worker --allow-code)"


class Judge:
    """Judges cases from any thread, and never raises for a case. Starts processes when they are first needed."""

    def __init__(self, *, num_processes: int = 3, limit_s: float = 10.0, allows_code: bool = False) -> None:
        """Examines at most `num_processes` cases at a time, and one less of the same owner, so that hanging cases of
        one owner never hold them all. Each thread may keep one more idle process for each slow import.
        """
        self._limit_s = limit_s
        self._allows_code = allows_code
        self._quick = ThreadPoolExecutor(1, thread_name_prefix="quick-judge")
        self._turns: Turns[tuple[Case, Future[Judgement]]] = Turns(max(1, num_processes - 1))
        # A slow import happens once, and no case of another verifier waits for it.
        modules = {row.slow_import for row in VERIFIERS.values() if row.slow_import is not None}
        self._servers = {module: ForkServer(live, module) for module in modules}
        self._server = ForkServer(live)
        self._threads = [
            threading.Thread(target=self._serve, name=f"judge-{number}", daemon=True) for number in range(num_processes)
        ]
        for thread in self._threads:
            thread.start()

    def submit(self, case: Case, whose: Hashable = None) -> Future[Judgement]:
        """Judges a quick case without waiting for slow ones, which share the time equally among all of `whose`."""
        if is_pure(case):
            return self._quick.submit(_guarded, case)
        future: Future[Judgement] = Future()
        if runs_code(case) and not self._allows_code:
            future.set_result(Judgement(Verdict.UNVERIFIED, _NO_CODE))
        else:
            self._turns.put(whose, (case, future))
        return future

    def examine(self, case: Case) -> Judgement:
        return self.submit(case).result()

    def close(self) -> None:
        """Ends the processes once they are free. No case may follow."""
        self._turns.close()
        for thread in self._threads:
            thread.join()
        self._quick.shutdown()
        for server in (self._server, *self._servers.values()):
            server.close()

    def _serve(self) -> None:
        slots: dict[ForkServer, ExaminerSlot] = {}
        while (turn := self._turns.take()) is not None:
            whose, (case, future) = turn
            began = time.monotonic()
            is_wanted = future.set_running_or_notify_cancel()
            if is_wanted:
                server = self._server_of(case)
                judgement = slots.setdefault(server, ExaminerSlot(server, self._limit_s)).examine(case)
            self._turns.served(whose, time.monotonic() - began)
            if is_wanted:
                future.set_result(judgement)

    def _server_of(self, case: Case) -> ForkServer:
        module = VERIFIERS[case.spec.name].slow_import if case.spec is not None else None
        return self._servers[module] if module is not None else self._server


class ExaminerSlot:
    """Holds the examiner of one thread, or none, and replaces one that died."""

    def __init__(self, server: ForkServer, limit_s: float) -> None:
        self._server = server
        self._limit_s = limit_s
        self._examiner: Examiner | None = None

    def examine(self, case: Case) -> Judgement:
        """Tries a case twice, because somebody outside may have killed the process."""
        try:
            with contextlib.suppress(ExaminerDied, ChildProcessError):
                return self._occupied().examine(case, self._limit_s)
            return self._occupied().examine(case, self._limit_s)
        except ExaminerDied:
            return unfinished(case, "the verifier died, twice")
        except Exception as error:
            return Judgement(Verdict.UNVERIFIED, f"the verifier could not be started: {type(error).__name__}")

    def _occupied(self) -> Examiner:
        if self._examiner is None or not self._examiner.is_alive:
            if self._examiner is not None:
                self._examiner.close()
            self._examiner = None
            self._examiner = Examiner(self._server)
        return self._examiner


def _guarded(case: Case) -> Judgement:
    try:
        return examine(case)
    except Exception as error:
        return unfinished(case, f"the verifier raised {type(error).__name__}")
