"""A process that examines one case after another in its main thread. It ends with the worker."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import resource
import signal
from multiprocessing.connection import Connection
from types import FrameType

from ponder.domain.state import Verdict
from ponder_worker.verify.case import Case, Judgement
from ponder_worker.verify.examine import examine, unfinished
from ponder_worker.verify.sandbox.fork_server import ForkServer

_MEMORY_BYTES = 4 << 30


class ExaminerDied(Exception):
    """The process ended without an answer: it was killed from outside, or the case brought it down."""


class Examiner:
    """Controls one such process. After a case that did not end in time, the next one needs a new examiner."""

    def __init__(self, server: ForkServer) -> None:
        """Takes a server that forks `live`. Raises OSError like `ForkServer.fork`."""
        self._server = server
        self.pid, self._pipe = server.fork()
        self._is_usable = True

    @property
    def is_alive(self) -> bool:
        """Whether it can take a case. Between two cases the pipe has something to read only after the end."""
        return self._is_usable and not self._pipe.poll()

    def examine(self, case: Case, limit_s: float) -> Judgement:
        """Returns within the limit, whatever the verifier does. It may be dead afterwards. Raises ExaminerDied."""
        data = json.dumps({"verifier": case.verifier, "answer": case.answer, "reference": case.reference})
        try:
            self._pipe.send_bytes(data.encode())
            found = json.loads(self._pipe.recv_bytes()) if self._pipe.poll(limit_s) else None
        except (EOFError, OSError):
            self.close()
            raise ExaminerDied from None
        if found is None:
            self.close()
            return unfinished(case, f"the verifier took more than {limit_s:g} s")
        return Judgement(Verdict(found["verdict"]), found["reason"])

    def close(self) -> None:
        if self._is_usable:
            self._is_usable = False
            self._server.end(self.pid)
            self._pipe.close()


def live(pipe: Connection) -> None:
    """Examines cases from a pipe until its other end is closed."""
    logging.disable()  # libraries warn about text that they cannot read, and quote it
    termination = _Termination()
    signal.signal(signal.SIGTERM, termination.ring)
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_AS, (_MEMORY_BYTES, _MEMORY_BYTES))
    with contextlib.suppress(EOFError, OSError):
        while True:
            case = Case(**json.loads(pipe.recv_bytes()))
            termination.is_busy = True
            pipe.send_bytes(json.dumps(_examine(case)).encode())
            termination.is_busy = False


class _Termination:
    """Ends the process on SIGTERM unless it is busy, because a signal to the group must not cost a verdict."""

    is_busy = False

    def ring(self, number: int, frame: FrameType | None) -> None:
        if not self.is_busy:
            os._exit(0)


def _examine(case: Case) -> dict[str, str | None]:
    try:
        found = examine(case)
    except Exception as error:
        found = unfinished(case, f"the verifier raised {type(error).__name__}")
    return {"verdict": found.verdict.value, "reason": found.reason}
