"""A process that examines one case after the other in its main thread, and dies with us."""

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
    """The process ended without a word: it was killed from outside, or the case brought it down."""


class Examiner:
    """One such process. A case that it cannot end in time is unfinished; the next one then needs a new process."""

    def __init__(self, server: ForkServer) -> None:
        """server: of `live`. Raises OSError like its `fork`."""
        self._server = server
        self.pid, self._pipe = server.fork()
        self._is_usable = True

    @property
    def is_alive(self) -> bool:
        """Nothing comes between two cases but the end."""
        return self._is_usable and not self._pipe.poll()

    def examine(self, case: Case, limit_s: float) -> Judgement:
        """Returns within the limit, whatever the verifier does, and may not be alive any more. Raises ExaminerDied."""
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
    """What such a process does until nobody is left at the other end."""
    logging.disable()  # libraries warn of what they cannot read, and quote it
    desk = _Desk()
    signal.signal(signal.SIGTERM, desk.leave)
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_AS, (_MEMORY_BYTES, _MEMORY_BYTES))
    with contextlib.suppress(EOFError, OSError):
        while True:
            case = Case(**json.loads(pipe.recv_bytes()))
            desk.is_busy = True
            pipe.send_bytes(json.dumps(_examine(case)).encode())
            desk.is_busy = False


class _Desk:
    """A SIGTERM to a whole family of processes must not make a right answer wrong: a busy process goes on."""

    is_busy = False

    def leave(self, number: int, frame: FrameType | None) -> None:
        if not self.is_busy:
            os._exit(0)


def _examine(case: Case) -> dict[str, str | None]:
    try:
        found = examine(case)
    except Exception as error:
        found = unfinished(case, f"the verifier raised {type(error).__name__}")
    return {"verdict": found.verdict.value, "reason": found.reason}
