"""Runs the supervisor: `python -m ponder.embedded PLAN`, with the plan as JSON."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from types import FrameType

import structlog

from ponder import log
from ponder.embedded.home import Home
from ponder.embedded.news import say
from ponder.embedded.plan import Plan
from ponder.embedded.supervisor import Supervisor
from ponder.errors import PonderError
from ponder.settings import Settings

_ENDINGS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
_log = structlog.get_logger("ponder.embedded")


class Stopped(BaseException):
    """The supervisor got SIGTERM or Ctrl-C. This is not an error, and nothing may swallow it."""


def main() -> int:
    plan = Plan.parse(sys.argv[1])
    for name in _ENDINGS:
        signal.signal(name, _stop)
    try:
        log.configure("supervisor", Settings().log_level)
        lock = Home(Path(plan.home)).lock()
        plan.check()
        Supervisor(plan).run()
        os.close(lock)
    except Stopped:
        _log.info("stopped")
    except (PonderError, OSError) as error:
        say({"error": str(error)})
        _log.critical("ended", error=str(error))
        return 1
    return 0


def _stop(number: int, frame: FrameType | None) -> None:
    for name in _ENDINGS:
        signal.signal(name, signal.SIG_IGN)  # once is enough, as stopping takes seconds
    raise Stopped


sys.exit(main())
