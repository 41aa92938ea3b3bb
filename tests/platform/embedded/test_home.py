from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from ponder.embedded.home import Home
from ponder.errors import Conflict, SetupError

HOLD = """
import os, sys, time
from pathlib import Path
from ponder.embedded.home import Home
home = Home(Path(sys.argv[1]))
home.prepare()
home.lock()
home.write_record({"pid": os.getpid(), "url": "u"})
print("held", flush=True)
time.sleep(60)
"""


def holder(home: Path) -> subprocess.Popen[bytes]:
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(home)], stdout=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.readline()
    return process


def test_nothing_runs_in_a_home_that_does_not_exist(home: Path) -> None:
    assert Home(home).running_pid() is None
    assert Home(home).record() is None
    assert Home(home).key() is None
    assert not home.exists()


def test_one_home_has_one_holder_and_whatever_a_killed_one_left_is_stale(home: Path) -> None:
    process = holder(home)
    assert Home(home).running_pid() == process.pid
    assert Home(home).recorded_url() == "u"
    with pytest.raises(Conflict, match="already up"):
        Home(home).lock()
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert Home(home).running_pid() is None
    assert Home(home).record() is None
    assert Home(home).record_file.exists()
    os.close(Home(home).lock())


def test_the_key_is_for_its_owners_eyes_only(home: Path) -> None:
    Home(home).prepare()
    Home(home).write_key("pk-secret")
    assert Home(home).key() == "pk-secret"
    assert stat.S_IMODE(Home(home).key_file.stat().st_mode) == 0o600


def test_a_home_that_cannot_be_written_names_the_remedy(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(SetupError, match="set PONDER_HOME"):
        Home(tmp_path / "file" / "home").prepare()


def test_a_home_that_others_can_write_is_refused(tmp_path: Path) -> None:
    tmp_path.chmod(0o1777)
    with pytest.raises(SetupError, match="set PONDER_HOME"):
        Home(tmp_path).prepare()
