"""Judges many cases at once. None of them can hold up or bring down another."""

from __future__ import annotations

import threading
import time
from collections import Counter, OrderedDict, deque
from collections.abc import Hashable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Generic, TypeVar

from ponder.domain.state import Verdict
from ponder_worker.verify.case import Case, Judgement
from ponder_worker.verify.examine import VERIFIERS, ExaminerSlot, examine, is_pure, live, runs_code, unfinished
from ponder_worker.verify.sandbox.fork_server import ForkServer

T = TypeVar("T")

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
        self._queue: FairQueue[tuple[Case, Future[Judgement]]] = FairQueue(max(1, num_processes - 1))
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
            self._queue.put(whose, (case, future))
        return future

    def examine(self, case: Case) -> Judgement:
        return self.submit(case).result()

    def close(self) -> None:
        """Ends the processes once they are free. No case may follow."""
        self._queue.close()
        for thread in self._threads:
            thread.join()
        self._quick.shutdown()
        for server in (self._server, *self._servers.values()):
            server.close()

    def _serve(self) -> None:
        slots: dict[ForkServer, ExaminerSlot] = {}
        while (turn := self._queue.take()) is not None:
            whose, (case, future) = turn
            began = time.monotonic()
            is_wanted = future.set_running_or_notify_cancel()
            if is_wanted:
                server = self._server_of(case)
                judgement = slots.setdefault(server, ExaminerSlot(server, self._limit_s)).examine(case)
            self._queue.served(whose, time.monotonic() - began)
            if is_wanted:
                future.set_result(judgement)

    def _server_of(self, case: Case) -> ForkServer:
        module = VERIFIERS[case.spec.name].slow_import if case.spec is not None else None
        return self._servers[module] if module is not None else self._server


class FairQueue(Generic[T]):
    """A queue for any number of threads on both ends that serves the owner that has used the least time next.

    One owner's long cases therefore hold up no other's. Items of one owner keep their order.

    Start-time fair queueing over seconds. An owner that joins, or joins again, starts at the least time used by one
    that waits or is served. It saves up nothing by its absence, and what it used before still counts.
    """

    def __init__(self, most: int) -> None:
        """Serves at most so many items of one owner at a time."""
        self._most = most
        self._changed = threading.Condition()
        self._queues: OrderedDict[Hashable, deque[T]] = OrderedDict()
        self._served: Counter[Hashable] = Counter()
        self._used_s: dict[Hashable, float] = {}
        self._closed = False

    def put(self, owner: Hashable, item: T) -> None:
        with self._changed:
            if owner not in self._queues and not self._served[owner]:
                self._used_s[owner] = max(self._used_s.get(owner, 0.0), self._least())
            self._queues.setdefault(owner, deque()).append(item)
            self._changed.notify_all()  # not every waiting thread may take it

    def take(self) -> tuple[Hashable, T] | None:
        """Waits for an item and returns it with its owner; call `served` when it is done. None: closed and empty."""
        with self._changed:
            self._changed.wait_for(lambda: self._allowed() or (self._closed and not self._queues))
            if not self._queues:
                return None
            # Among equals, takes the owner with the longest wait since its last turn.
            owner = min(self._allowed(), key=self._used_s.__getitem__)
            self._queues.move_to_end(owner)
            queue = self._queues[owner]
            item = queue.popleft()
            if not queue:
                del self._queues[owner]
            self._served[owner] += 1
            if self._closed:
                self._changed.notify_all()
            return owner, item

    def served(self, owner: Hashable, seconds: float) -> None:
        """Books the seconds of a finished item."""
        with self._changed:
            self._used_s[owner] += seconds
            self._served[owner] -= 1
            self._served += Counter()  # drops those at zero
            self._forget()
            self._changed.notify_all()

    def close(self) -> None:
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def _allowed(self) -> list[Hashable]:
        return [owner for owner in self._queues if self._served[owner] < self._most]

    def _least(self) -> float:
        return min((self._used_s[owner] for owner in self._queues.keys() | self._served.keys()), default=0.0)

    def _forget(self) -> None:
        """Drops absent owners that would start no later than a new one."""
        active = self._queues.keys() | self._served.keys()
        least = self._least()
        self._used_s = {
            owner: used for owner, used in self._used_s.items() if active and (owner in active or used > least)
        }


def _guarded(case: Case) -> Judgement:
    try:
        return examine(case)
    except Exception as error:
        return unfinished(case, f"the verifier raised {type(error).__name__}")
