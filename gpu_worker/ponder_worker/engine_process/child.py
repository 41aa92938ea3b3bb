"""The start and the end of the engine process."""

from __future__ import annotations

import asyncio
import faulthandler
import multiprocessing
import os
import signal
import sys
from multiprocessing.connection import Connection
from typing import NoReturn

import structlog

from ponder import log
from ponder_worker.engine_process.loading.engine_options import EngineOptions
from ponder_worker.parent_death import die_with_parent
from ponder_worker.protocol import Failed, Loading, encode

_log = structlog.get_logger(__name__)


def main(pipe: Connection, options: EngineOptions) -> None:
    """Runs the engine process until it is drained or its parent is gone.

    Call it in a process of its own, spawned by a thread that lives as long as the child should.
    """
    parent = multiprocessing.parent_process()
    die_with_parent(os.getppid() if parent is None or parent.pid is None else parent.pid)
    faulthandler.register(signal.SIGUSR1)  # how the parent makes a process that hangs show its stacks
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a Ctrl-C in the terminal is the parent's to answer
    if options.engine == "own":
        # Before torch is imported: threads that spin while they wait cost a busy machine milliseconds per operation.
        os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    # Texts are encoded one at a time, so a thread pool in the tokenizer would only wait.
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    log.configure("engine", options.log_level, incarnation=options.incarnation)
    _run(pipe, options)


def _run(pipe: Connection, options: EngineOptions) -> None:
    from ponder_worker.engine.engine_error import EngineError
    from ponder_worker.engine_process.loading.engines import Placement
    from ponder_worker.engine_process.loading.sources import load
    from ponder_worker.engine_process.loop import Loop
    from ponder_worker.models.model_error import ModelError

    def announce(placement: Placement) -> None:
        pipe.send_bytes(encode(Loading(str(placement.device), placement.precisions)))

    try:
        engines = load(options, announce)
    except Exception as error:
        is_explained = isinstance(error, ModelError | EngineError)
        pipe.send_bytes(encode(Failed(str(error) if is_explained else f"{type(error).__name__}: {error}")))
        _exit(1)
    try:
        asyncio.run(Loop(pipe, engines, options).run())
    except Exception as error:
        _log.critical("engine_broke", exc_info=error)
        _exit(1)
    _exit(0)


def _exit(code: int) -> NoReturn:
    """Skips the interpreter's cleanup of torch and of unfinished searches, which takes seconds on a busy machine."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
