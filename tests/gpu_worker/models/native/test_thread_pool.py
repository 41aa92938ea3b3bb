"""The threads that the C code divides its loops among."""

import subprocess
import sys
import textwrap
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ponder_worker.models.native.library import library

pytestmark = pytest.mark.usefixtures("compiler")

ROWS, WIDTH = 64, 4096


def made(num_rows: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(num_rows, 2 * WIDTH, generator=torch.Generator().manual_seed(seed))


def gate(gate_up: torch.Tensor, num_threads: int) -> torch.Tensor:
    """The gate computed by that many threads. Each number of the result is computed for itself."""
    functions = library(torch.float32)
    assert functions is not None
    out = torch.full((len(gate_up), WIDTH), torch.nan)
    functions.gate(gate_up.data_ptr(), out.data_ptr(), len(gate_up), WIDTH, num_threads)
    return out


@given(num_rows=st.integers(0, 70), num_threads=st.integers(1, 9))
def test_every_row_is_computed_whatever_the_number_of_threads(num_rows: int, num_threads: int) -> None:
    gate_up = made(num_rows)
    assert torch.equal(gate(gate_up, num_threads), gate(gate_up, 1))


def test_callers_at_the_same_time_each_get_their_own_result() -> None:
    inputs = [made(ROWS, seed) for seed in range(6)]
    expected = [gate(each, 1) for each in inputs]

    def play(caller: int) -> bool:
        return all(torch.equal(gate(inputs[caller], 3), expected[caller]) for _ in range(100))

    with ThreadPoolExecutor(len(inputs)) as callers:
        assert all(callers.map(play, range(len(inputs))))


SCRIPT = """
import os, resource, signal, sys, threading, time
import torch
torch.set_num_threads(1)
from ponder_worker.models.native.library import library
functions = library(torch.float32)
inputs, out = torch.ones(64, 8192), torch.empty(64, 4096)
def gate(num_threads):
    out.fill_(-1)
    functions.gate(inputs.data_ptr(), out.data_ptr(), 64, 4096, num_threads)
    assert torch.allclose(out, torch.full_like(out, 0.7310586)), out
def threads():
    return set(os.listdir("/proc/self/task"))
before = threads()
"""


def in_a_process(body: str) -> str:
    """Returns the output of a fresh process, in which no thread of the pool runs yet. It must end well and soon."""
    script = SCRIPT + textwrap.dedent(body)
    found = subprocess.run([sys.executable, "-c", script], check=False, capture_output=True, text=True, timeout=60)
    assert found.returncode == 0, found.stderr
    return found.stdout.strip()


def test_a_caller_alone_starts_no_thread() -> None:
    assert in_a_process("gate(1)\nprint(len(threads() - before))") == "0"


def test_threads_are_started_once_and_end_with_the_process() -> None:
    assert in_a_process("for _ in range(500): gate(3); gate(2)\nprint(len(threads() - before))") == "2"


def test_a_child_has_threads_of_its_own() -> None:
    found = in_a_process("""
        gate(2)
        child = os.fork()
        if not child:
            signal.alarm(30)
            gate(1)
            alone = len(threads())
            for _ in range(100): gate(2)
            os._exit(len(threads()) - alone)
        _, status = os.waitpid(child, 0)
        gate(2)
        print(os.waitstatus_to_exitcode(status), len(threads() - before))
    """)
    assert found == "1 1"


def test_a_child_forked_amid_a_loop_is_not_stuck() -> None:
    found = in_a_process("""
        done = False
        def loop():
            while not done: functions.gate(inputs.data_ptr(), other.data_ptr(), 64, 4096, 2)
        other = torch.empty_like(out)
        caller = threading.Thread(target=loop)
        caller.start()
        statuses = []
        for _ in range(50):
            child = os.fork()
            if not child:
                signal.alarm(30)
                gate(2)
                os._exit(0)
            statuses.append(os.waitpid(child, 0)[1])
        done = True
        caller.join()
        print(set(statuses))
    """)
    assert found == "{0}"


def test_idle_threads_sleep() -> None:
    found = in_a_process("""
        gate(2)
        time.sleep(0.1)
        used = time.process_time()
        time.sleep(0.5)
        print(time.process_time() - used < 0.01)
    """)
    assert found == "True"


def test_signals_are_left_to_the_threads_of_the_program() -> None:
    found = in_a_process("""
        gate(2)
        (worker,) = threads() - before
        status = dict(line.split(":", 1) for line in open(f"/proc/self/task/{worker}/status"))
        blocked = int(status["SigBlk"], 16)
        numbers = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGALRM)
        print(all(blocked >> number - 1 & 1 for number in numbers))
    """)
    assert found == "True"


def test_a_caller_that_gets_no_thread_computes_alone() -> None:
    found = in_a_process("""
        gate(1)
        _, hard = resource.getrlimit(resource.RLIMIT_AS)
        resource.setrlimit(resource.RLIMIT_AS, (1 << 20, hard))
        out.fill_(-1)
        functions.gate(inputs.data_ptr(), out.data_ptr(), 64, 4096, 3)
        resource.setrlimit(resource.RLIMIT_AS, (hard, hard))
        assert torch.allclose(out, torch.full_like(out, 0.7310586))
        print(len(threads() - before))
    """)
    assert found == "0"


def test_many_threads_on_few_cores_are_not_slow() -> None:
    """A loop does not wait for a worker whose core is busy: the caller computes what the worker has not taken."""
    found = in_a_process("""
        def seconds(num_threads):
            began = time.perf_counter()
            for _ in range(300): functions.gate(inputs.data_ptr(), out.data_ptr(), 64, 4096, num_threads)
            return time.perf_counter() - began
        gate(32)
        print(min(seconds(32) for _ in range(5)) < 5 * min(seconds(1) for _ in range(5)))
    """)
    assert found == "True"
