"""A spawned process that examines one case after the other in its main thread, and dies with us."""

from __future__ import annotations

import contextlib
import ctypes
import json
import logging
import multiprocessing
import os
import resource
import signal
import warnings
from multiprocessing.connection import Connection
from types import FrameType

from ponder.domain.state import Verdict
from ponder_worker.verify.case import Case, Judgement
from ponder_worker.verify.examine import examine

_PR_SET_PDEATHSIG = 1
_MEMORY_BYTES = 4 << 30


class ExaminerDied(Exception):
    """The process ended without a word: it was killed from outside, or the case brought it down."""


class Examiner:
    """One such process. A case that it cannot end in time fails; after that the next one needs a new process.

    Make it in a thread that lives as long as it should: the kernel ends the process with that *thread*.
    """

    def __init__(self, *, start_s: float = 60.0) -> None:
        """`start_s`: for the imports, which no case should pay for. Raises OSError, of which ChildProcessError says
        that it ended meanwhile and TimeoutError that it took too long.
        """
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_live, args=(theirs,), name="ponder-examiner", daemon=True)
        with theirs:
            self._process.start()
        self._is_usable = True
        try:
            is_ready = self._receive(start_s) is not None
        except ExaminerDied:
            self.close()
            raise ChildProcessError from None
        if not is_ready:
            self.close()
            raise TimeoutError

    @property
    def is_alive(self) -> bool:
        return self._is_usable and self._process.is_alive()

    @property
    def pid(self) -> int | None:
        return self._process.pid

    def examine(self, case: Case, limit_s: float) -> Judgement:
        """Returns within the limit, whatever the verifier does, and may not be alive any more. Raises ExaminerDied."""
        data = json.dumps({"verifier": case.verifier, "answer": case.answer, "reference": case.reference})
        try:
            self._pipe.send_bytes(data.encode())
            found = self._receive(limit_s)
        except (ExaminerDied, OSError):
            self.close()
            raise ExaminerDied from None
        if found is None:
            self.close()
            return Judgement(Verdict.FAILED, f"the verifier took more than {limit_s:g} s")
        return Judgement(Verdict(found["verdict"]), found["reason"])

    def close(self) -> None:
        self._is_usable = False
        self._process.kill()
        self._process.join()
        self._pipe.close()

    def _receive(self, limit_s: float) -> dict[str, str] | None:
        """None: not in time. Raises ExaminerDied."""
        try:
            if not self._pipe.poll(limit_s):
                return None
            found: dict[str, str] = json.loads(self._pipe.recv_bytes())
        except (EOFError, OSError):
            raise ExaminerDied from None
        return found


def _live(pipe: Connection) -> None:
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    parent = multiprocessing.parent_process()
    if parent is not None and os.getppid() != parent.pid:
        os._exit(1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    desk = _Desk()
    signal.signal(signal.SIGTERM, desk.leave)
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_AS, (_MEMORY_BYTES, _MEMORY_BYTES))
    # What sympy and its like have to say about an answer would quote it.
    logging.disable()
    warnings.simplefilter("ignore")
    from ponder_worker.verify import math  # noqa: F401  # before the first case, whose limit does not pay for sympy

    pipe.send_bytes(b"{}")
    with contextlib.suppress(EOFError, OSError):
        while True:
            case = Case(**json.loads(pipe.recv_bytes()))
            desk.is_busy = True
            pipe.send_bytes(json.dumps(_examine(case)).encode())
            desk.is_busy = False


class _Desk:
    """A SIGTERM to a whole family of processes must not make a right answer wrong: who examines goes on."""

    is_busy = False

    def leave(self, number: int, frame: FrameType | None) -> None:
        if not self.is_busy:
            os._exit(0)


def _examine(case: Case) -> dict[str, str | None]:
    try:
        found = examine(case)
    except Exception as error:
        found = Judgement(Verdict.FAILED, f"the verifier raised {type(error).__name__}")
    return {"verdict": found.verdict.value, "reason": found.reason}
