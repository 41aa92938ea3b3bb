"""Programs that models write: right, wrong, and hostile. Each fails alone and leaves nothing behind."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ponder.domain.state import Verdict
from ponder_worker.verify import Case, Judge, Judgement, examine
from ponder_worker.verify.sandbox.sandbox import NoSandbox, run

SQUARE = "def square(x):\n    return x * x\n"
ASSERTS = "assert square(2) == 4\nassert square(3) == 9\n"


def _is_possible() -> bool:
    try:
        return run("", wall_s=20).code == 0
    except NoSandbox:
        return False


pytestmark = pytest.mark.skipif(not _is_possible(), reason="this machine gives no namespaces to put a program apart")


def judged(answer: str, reference: str | None = None, **spec: Any) -> Judgement:
    return examine(Case({"name": "python_tests"} | spec, answer, reference))


@pytest.fixture(autouse=True)
def _nothing_is_left() -> Iterator[None]:
    yield
    until = time.monotonic() + 20
    while programs := [path for path in Path("/proc").glob("[0-9]*/cmdline") if b"/start.py" in _read(path)]:
        assert time.monotonic() < until, programs
        time.sleep(0.05)


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (SQUARE, None),
        ("def square(x):\n    return x + x\n", "AssertionError:  at assert square(3) == 9"),
        ("def square(x):\n    return y\n", "NameError: name 'y' is not defined at assert square(2) == 4"),
        ("def square(x", "SyntaxError"),
        ("import sys\nsys.exit(0)\n", "SystemExit"),
        ("import os\nos._exit(0)\n", "exit code 0 before its tests did"),
        (SQUARE + "if __name__ == '__main__':\n    raise ValueError\n", None),
    ],
)
def test_asserts_run_after_the_program_and_say_what_failed(answer: str, reason: str | None) -> None:
    found = judged(answer, tests=ASSERTS)
    assert (found.verdict is Verdict.PASSED) == (reason is None), found
    assert reason is None or reason in (found.reason or "")


SUM = "a, b = map(int, input().split())\nprint(a + b, ' ')\n"


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (SUM, None),
        ("print(3)", "with the input '2 5' it wrote '3\\n', and '7\\n' is expected"),
        ("raise ValueError('no')", "ValueError: no"),
        ("import os\nos.kill(os.getpid(), 9)", "exit code 137"),
    ],
)
def test_cases_are_runs_of_the_program_with_an_input_and_an_output(answer: str, reason: str | None) -> None:
    cases = [{"stdin": "1 2", "stdout": "3"}, {"stdin": "2 5", "stdout": "7\n"}]
    found = judged(answer, cases=cases)
    assert (found.verdict is Verdict.PASSED) == (reason is None), found
    assert reason is None or reason in (found.reason or "")


@pytest.mark.parametrize(
    "reference", [ASSERTS, json.dumps(ASSERTS.splitlines()), json.dumps([{"stdin": "", "stdout": "4"}])]
)
def test_tests_in_the_reference_are_not_told(reference: str) -> None:
    right = SQUARE + "if __name__ == '__main__':\n    print(4)\n"
    assert judged(right, reference).verdict is Verdict.PASSED
    found = judged("def square(x):\n    return 5\nprint(5)", reference)
    assert found.verdict is Verdict.FAILED
    assert "square(2)" not in (found.reason or "")
    assert "4" not in (found.reason or "")


@pytest.mark.parametrize("reference", ["def (", "[1, 2]", '{"a": 1}'])
def test_a_reference_without_tests_leaves_the_answer_unverified(reference: str) -> None:
    assert judged(SQUARE, reference).verdict is Verdict.UNVERIFIED


HOSTILE = {
    "fork bomb": ("import os\nwhile True:\n    os.fork()\n", "BlockingIOError|where the tests report"),
    "10 GB": ("x = bytearray(10 << 30)\n", "MemoryError"),
    "10 GB by and by": ("x = []\nwhile True:\n    x.append(bytearray(1 << 24))\n", "MemoryError"),
    "threads": (
        "import threading, time\nfor _ in range(100):\n    threading.Thread(target=time.sleep, args=(99,)).start()\n",
        "RuntimeError",
    ),
    "endless output": ("while True:\n    print('x' * 1000)\n", "more than a megabyte"),
    "huge file": ("open('/tmp/x', 'wb').write(bytes(1 << 28))\n", "exit code 153|OSError"),
    "many files": ("for n in range(10**6):\n    open(f'/tmp/{n}', 'w')\n", "OSError"),
    "a full disk": ("for n in range(99):\n    open(f'/tmp/{n}', 'wb').write(bytes(1 << 23))\n", "OSError"),
    "someone else's file": ("open('/usr/x', 'w')\n", "OSError|PermissionError"),
    "the parent": (
        "import os\nassert os.getppid() == 1\nos.kill(1, 9)\nos.kill(-1, 9)\nimport time; time.sleep(60)\n",
        "",
    ),
    "proc": ("open('/proc/1/environ')\n", "FileNotFoundError"),
    "passwords": ("open('/etc/shadow')\n", "FileNotFoundError"),
    "a socket": ("import socket\nsocket.create_connection(('127.0.0.1', PORT), 2)\n", "OSError|PermissionError"),
    "a pair of sockets": ("import socket\nsocket.socketpair()\n", "PermissionError"),
    "a pair of sockets, by asyncio": ("import asyncio, socket\nsocket.socketpair()\n", "PermissionError"),
    "a name": ("import socket\nsocket.getaddrinfo('example.org', 80)\n", "gaierror"),
    "a world of its own": (
        "import ctypes\nif ctypes.CDLL(None).unshare(0x10000000):\n    raise PermissionError\n",
        "PermissionError",
    ),
    "memory that no limit counts": (
        "import ctypes\nif ctypes.CDLL(None).shmget(0, 1 << 30, 0o1600) < 0:\n    raise MemoryError\n",
        "MemoryError",
    ),
    "file descriptors": (
        "import os\n"
        "for fd in range(3, 999):\n"
        "    try:\n"
        "        os.fstat(fd)\n"
        "    except OSError:\n"
        "        continue\n"
        "    assert os.stat(fd).st_mode & 0o170000 == 0o010000, fd\n"
        "    os.write(fd, b'null more')\n",
        "where the tests report",
    ),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_program_fails_for_itself_only(name: str) -> None:
    program, reasons = HOSTILE[name]
    with socket.create_server(("127.0.0.1", 0)) as server:
        found = judged(program.replace("PORT", str(server.getsockname()[1])), tests="assert True")
    assert found.verdict is Verdict.FAILED
    assert any(reason in (found.reason or "") for reason in reasons.split("|")), found


@pytest.mark.parametrize(
    "program",
    [
        "while True:\n    pass\n",
        "import os, time\nif os.fork():\n    os.setsid()\ntime.sleep(1000)\n",
        "import signal, time\nfor n in range(1, 32):\n    try:\n        signal.signal(n, signal.SIG_IGN)\n"
        "    except (OSError, ValueError):\n        pass\ntime.sleep(1000)\n",
    ],
)
def test_a_program_that_goes_on_is_ended_with_all_its_children(program: str) -> None:
    assert run(program, wall_s=1.5).over == "time"


def test_children_that_outlive_the_program_are_ended_with_it() -> None:
    ended = run("import os, time\nif not os.fork():\n    os.setsid()\n    time.sleep(1000)\n", wall_s=60)
    assert (ended.code, ended.over) == (0, None)


def test_a_program_may_have_threads_children_and_an_event_loop() -> None:
    program = (
        "import asyncio, subprocess, sys, threading\n"
        "thread = threading.Thread(target=print, args=('thread',))\n"
        "thread.start()\n"
        "thread.join()\n"
        "subprocess.run([sys.executable, '-c', 'print(\"child\")'], check=True)\n"
        "async def main():\n"
        "    print(await asyncio.to_thread(lambda: 'loop'))\n"
        "asyncio.run(main())\n"
    )
    said = run("import functools\nprint = functools.partial(print, flush=True)\n" + program, wall_s=20)
    assert said.stdout.split() == [b"thread", b"child", b"loop"], said.stderr


def test_a_program_sees_an_empty_world(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PONDER_DATABASE_URL", "postgresql://secret")
    said = run(
        "import json, os, sys\n"
        "found = {path: os.listdir(path) for path in ('/', '/tmp', '/dev')}\n"
        "print(json.dumps([dict(os.environ), found, os.getuid(), os.getcwd(), sys.path]))",
        wall_s=20,
    )
    environment, found, uid, folder, path = json.loads(said.stdout)
    assert environment.keys() <= {"LC_CTYPE"}
    assert found["/tmp"] == []
    assert set(found["/dev"]) == {"null", "zero", "random", "urandom"}
    assert not {"proc", "etc", "home", "work", "var", "run", "sys"} & set(found["/"])
    assert uid != 0
    assert folder == "/tmp"
    assert not [place for place in path if "site-packages" in place]


WRITES = (
    "import json, os\n"
    "written = []\n"
    "for folder, _, names in os.walk('/'):\n"
    "    for name in ['', *names]:\n"
    "        path = os.path.join(folder, name)\n"
    "        if os.access(path, os.W_OK) and not path.startswith(('/tmp', '/dev/')) and not os.path.islink(path):\n"
    "            written.append(path)\n"
    "    try:\n"
    "        open(os.path.join(folder, 'x'), 'w').close()\n"
    "        written.append(folder)\n"
    "    except OSError:\n"
    "        pass\n"
    "print(json.dumps(written))\n"
)


def test_nothing_but_tmp_can_be_written() -> None:
    said = run(WRITES, wall_s=200)
    assert json.loads(said.stdout) == ["/tmp"], said.stderr


@pytest.mark.skipif(os.getuid() != 0, reason="all tests above run without being root")
def test_without_being_root_nothing_but_tmp_can_be_written_either(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Runs the system's Python, which others may use. The program owns its own root there."""
    python = "/usr/bin/python3"
    if not os.path.exists(python):
        pytest.skip(f"this machine has no {python}")
    folder = tmp_path_factory.mktemp("verify")
    for above in (folder, *folder.parents[:3]):
        above.chmod(0o755)
    for name in ("sandbox", "warden", "program_start"):
        (folder / f"{name}.py").write_text(Path(run.__code__.co_filename).with_name(f"{name}.py").read_text())
    script = f"import sandbox\ntry:\n    print(sandbox.run({WRITES!r}, wall_s=200).stdout.decode())\n"
    script += "except sandbox.NoSandbox:\n    print('none')\n"
    ids: dict[str, Any] = {"user": 61_183, "group": 61_183, "extra_groups": []}
    ran = subprocess.run([python, "-c", script], cwd=folder, capture_output=True, text=True, check=True, **ids)
    if ran.stdout == "none\n":
        pytest.skip("another user has no user namespaces")
    assert json.loads(ran.stdout) == ["/tmp"], ran.stderr


def test_a_program_that_hangs_dies_with_who_runs_it_and_the_judge_goes_on() -> None:
    judge = Judge(num_processes=1, limit_s=2.0, allows_code=True)
    found = judge.examine(Case({"name": "python_tests", "tests": "while True: pass"}, "x = 1"))
    assert found.verdict is Verdict.FAILED
    assert "more than 2 s" in (found.reason or "")
    passed = judge.examine(Case({"name": "python_tests", "tests": ASSERTS}, SQUARE))
    assert passed.verdict is Verdict.PASSED
    judge.close()


@pytest.mark.skipif(os.getuid() != 0, reason="all tests above run without being root")
def test_without_being_root_a_program_is_put_apart_as_well() -> None:
    here = (
        "import sys; sys.path[:] = json.loads(sys.argv[1]); "
        "from ponder_worker.verify.sandbox.sandbox import NoSandbox, run"
    )
    asks = "import os; print(os.getuid(), os.path.exists('/proc'), flush=True)\nwhile True: os.fork()"
    script = (
        f"import json; {here}\ntry:\n    print(run({asks!r}, wall_s=20).stdout.decode())\n"
        "except NoSandbox:\n    print('none')\n"
    )
    command = [sys.executable, "-c", script, json.dumps(sys.path)]
    try:
        ran = subprocess.run(
            command, user=61_183, group=61_183, extra_groups=[], capture_output=True, text=True, check=False
        )
    except PermissionError:
        pytest.skip("another user cannot run this environment's Python")
    if "Permission denied" in ran.stderr or ran.stdout == "none\n":
        pytest.skip("another user cannot read this checkout, or has no user namespaces")
    assert ran.stdout.split() == ["61183", "False"], ran.stderr


def test_a_machine_that_gives_no_namespaces_runs_nothing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    warden = tmp_path / "warden.py"
    source = Path(run.__code__.co_filename).with_name("warden.py").read_text()
    warden.write_text(source.replace('_call("unshare", ', '_call("unshare", 8 | '))
    monkeypatch.setattr("ponder_worker.verify.sandbox.sandbox._WARDEN", str(warden))
    found = judged(SQUARE, tests="import os; os.mkdir('/tmp/ran')")
    assert found.verdict is Verdict.UNVERIFIED
    assert "unshare" in (found.reason or "")
    assert not os.path.exists("/tmp/ran")
