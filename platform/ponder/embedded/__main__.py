"""`python -m ponder.embedded PLAN`: the supervisor's process, with the plan as JSON."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from types import FrameType

from ponder.embedded.home import Home
from ponder.embedded.news import log, say
from ponder.embedded.plan import Plan
from ponder.embedded.supervisor import Supervisor
from ponder.errors import PonderError

_ENDINGS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


class Stopped(BaseException):
    """SIGTERM or Ctrl-C: not an error, and nothing may swallow it."""


def main() -> int:
    plan = Plan.parse(sys.argv[1])
    for name in _ENDINGS:
        signal.signal(name, _stop)
    try:
        lock = Home(Path(plan.home)).lock()
        plan.check()
        Supervisor(plan).run()
        os.close(lock)
    except Stopped:
        log("stopped")
    except (PonderError, OSError) as error:
        say({"error": str(error)})
        log(f"error: {error}")
        return 1
    return 0


def _stop(number: int, frame: FrameType | None) -> None:
    for name in _ENDINGS:
        signal.signal(name, signal.SIG_IGN)  # once is enough; stopping takes its seconds
    raise Stopped


sys.exit(main())
