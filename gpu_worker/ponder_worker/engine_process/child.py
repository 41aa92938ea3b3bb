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
import traceback
from multiprocessing.connection import Connection

_PR_SET_PDEATHSIG = 1


def live(pipe: Connection, options: str) -> None:
    _die_with_parent()
    faulthandler.register(signal.SIGUSR1)  # the parent's, when we hang: `show_stacks`
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a Ctrl-C in the terminal is the parent's to answer
    # Before torch is imported: threads that spin while they wait cost a busy machine milliseconds an operation.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    # One text at a time: a pool of threads for it would only wait.
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    from ponder_worker.engine_process.loading import load
    from ponder_worker.engine_process.loop import Loop
    from ponder_worker.engine_process.options import EngineOptions

    try:
        parsed = EngineOptions.parse(options)
        engines = load(parsed)
    except Exception as error:
        pipe.send_bytes(json.dumps({"type": "failed", "message": f"{type(error).__name__}: {error}"}).encode())
        return
    code = 0
    try:
        asyncio.run(Loop(pipe, engines, parsed).run())
    except Exception:
        traceback.print_exc()
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
