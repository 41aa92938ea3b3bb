from __future__ import annotations

import os
import sys
import time
from pathlib import Path

from waiting import until

from ponder.embedded.service import Service


def service(tmp_path: Path, program: str) -> Service:
    return Service("it", [sys.executable, "-c", program], os.environ, tmp_path / "it.log")


def test_a_dead_process_is_restarted_after_a_pause(tmp_path: Path) -> None:
    it = service(tmp_path, "print('dying', flush=True); raise SystemExit(3)")
    it.start()
    assert it.process is not None
    it.process.wait()
    assert it.mend() is None
    assert (until(it.mend, 20), it.num_restarts) == (3, 1)
    it.stop()
    assert "dying" in it.last_words()


def test_only_the_final_error_of_a_log_is_quoted_if_there_is_one(tmp_path: Path) -> None:
    it = service(tmp_path, "")
    it.log.write_text('{"event": "registered"}\nerror: /m: no tokenizer.json\n{"event": "registered"}\n')
    assert it.last_words() == "/m: no tokenizer.json"
    it.log.write_text(
        '{"event": "registered"}\n{"event": "ended", "error": "/m: no config.json"}\n{"event": "registered"}\n'
    )
    assert it.last_words() == "/m: no config.json"


def test_a_living_process_is_left_alone_and_stops_when_asked(tmp_path: Path) -> None:
    it = service(tmp_path, "import time; time.sleep(60)")
    it.start()
    assert it.mend() is None
    assert it.pid is not None
    it.ask_to_stop()
    it.stop()
    assert it.pid is None


def test_a_process_that_ignores_sigterm_is_killed(tmp_path: Path) -> None:
    it = service(
        tmp_path, "import signal, time; signal.signal(15, signal.SIG_IGN); print('up', flush=True); time.sleep(60)"
    )
    it.grace_s = 0.2
    it.start()
    while "up" not in it.last_words():
        time.sleep(0.02)
    it.stop()
    assert it.process is not None
    assert it.process.returncode == -9
