"""The birth of the engine process."""

from __future__ import annotations

import asyncio
import ctypes
import faulthandler
import json
import multiprocessing
import os
import signal
import sys
from multiprocessing.connection import Connection

import structlog

from ponder import log

_PR_SET_PDEATHSIG = 1


def live(pipe: Connection, options: str) -> None:
    _die_with_parent()
    faulthandler.register(signal.SIGUSR1)  # the parent's, when we hang: `show_stacks`
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a Ctrl-C in the terminal is the parent's to answer
    # Before torch is imported: threads that spin while they wait cost a busy machine milliseconds an operation.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    # One text at a time: a pool of threads for it would only wait.
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    from ponder_worker.engine.engine_error import EngineError
    from ponder_worker.engine_process.loading import Placement, load
    from ponder_worker.engine_process.loop import Loop
    from ponder_worker.engine_process.options import EngineOptions
    from ponder_worker.models.errors import ModelError

    def tell(placement: Placement) -> None:
        precisions = [{"dtype": each.dtype, "reason": each.reason} for each in placement.precisions]
        message = {"type": "loading", "device": str(placement.device), "precisions": precisions}
        pipe.send_bytes(json.dumps(message).encode())

    try:
        parsed = EngineOptions.parse(options)
        log.configure("engine", parsed.log_level, incarnation=parsed.incarnation)
        engines = load(parsed, tell)
    except Exception as error:
        is_told = isinstance(error, ModelError | EngineError)
        message = str(error) if is_told else f"{type(error).__name__}: {error}"
        pipe.send_bytes(json.dumps({"type": "failed", "message": message}).encode())
        return
    code = 0
    try:
        asyncio.run(Loop(pipe, engines, parsed).run())
    except Exception as error:
        structlog.get_logger(__name__).critical("engine_broke", exc_info=error)
        code = 1
    # Everything is said. The interpreter's farewell to torch and to half-done searches takes seconds on a busy machine.
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _die_with_parent() -> None:
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    parent = multiprocessing.parent_process()
    if parent is not None and os.getppid() != parent.pid:
        os._exit(1)
