"""Passes a program that passes its tests. It runs in `sandbox`, because nobody trusts it."""

from __future__ import annotations

import ast
import json
import time
from collections.abc import Sequence

from pydantic import TypeAdapter, ValidationError

from ponder.domain.state import Verdict
from ponder.domain.verifier import Exchange, PythonTests
from ponder_worker.verify.case import Judgement
from ponder_worker.verify.sandbox.sandbox import Ended, NoSandbox, run

WALL_S = 8.0
"""Seconds for all tests of a program. Less than a case has in all, so that the reason can say what was too slow."""
_SHOWN = 120
_TESTS: TypeAdapter[list[Exchange] | list[str]] = TypeAdapter(list[Exchange] | list[str])
_RUNNER = """
import json, os, sys, traceback

def told(error, tests):
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == "tests.py"]
    return [type(error).__name__, str(error)[:1000], tests.splitlines()[lines[-1] - 1][:1000] if lines else ""]

job, failed = json.load(sys.stdin), None
scope = {"__name__": "answer"}
try:
    exec(compile(job["answer"], "answer.py", "exec"), scope)
    exec(compile(job["tests"], "tests.py", "exec"), scope)
except BaseException as error:
    failed = told(error, job["tests"])
os.write(int(sys.argv[-1]), json.dumps(failed).encode())
os._exit(0)  # ends threads that the program has left
"""


def examine(answer: str, spec: PythonTests, reference: str) -> Judgement:
    """Says which test failed, unless the tests are hidden in the reference."""
    is_hidden = spec.tests is None and not spec.cases
    try:
        tests = _of_reference(reference) if is_hidden else spec.tests or spec.cases
        failed = _first_failed(answer, tests) if isinstance(tests, str) else _first_wrong(answer, tests)
    except (SyntaxError, ValidationError) as error:
        return Judgement(Verdict.UNVERIFIED, f"the tests are neither Python nor cases: {type(error).__name__}")
    except NoSandbox as error:
        return Judgement(Verdict.UNVERIFIED, f"this machine cannot run a sandbox: {error}")
    if failed is None:
        return Judgement(Verdict.PASSED)
    what, details = failed
    return Judgement(Verdict.FAILED, what if is_hidden or not details else f"{what}: {details}")


def _of_reference(reference: str) -> str | list[Exchange]:
    """Returns Python or cases. Raises ValidationError for JSON that is neither."""
    try:
        found = _TESTS.validate_python(json.loads(reference))
    except ValueError as error:
        if isinstance(error, ValidationError):
            raise
        return reference
    return [one for one in found if isinstance(one, Exchange)] or "\n".join(map(str, found))


def _first_failed(answer: str, tests: str) -> tuple[str, str] | None:
    """Returns what failed, and the details for the tests' author only, or None. Raises SyntaxError for the tests'."""
    ast.parse(tests)
    ended = run(_RUNNER, stdin=json.dumps({"answer": answer, "tests": tests}), wall_s=WALL_S)
    if ended.over is not None or not ended.report:
        return _why(ended, WALL_S), ""
    try:
        failed = json.loads(ended.report)
    except ValueError:
        return "the program wrote where the tests report", ""
    if failed is None:
        return None
    kind, message, line = (str(part)[:_SHOWN] for part in failed)
    return f"the program or a test of it raised {kind}", f"{message} at {line}" if line else message


def _first_wrong(answer: str, cases: Sequence[Exchange]) -> tuple[str, str] | None:
    until = time.monotonic() + WALL_S
    for case in cases:
        ended = run(answer, stdin=case.stdin, wall_s=max(0.1, until - time.monotonic()))
        given = f"with the input {case.stdin[:_SHOWN]!r}"
        if ended.over is not None or ended.code:
            return _why(ended, WALL_S), f"{given}{_last_line(ended.stderr)}"
        wrote = ended.stdout.decode(errors="replace")
        if _trimmed(wrote) != _trimmed(case.stdout):
            wanted = f"it wrote {wrote[:_SHOWN]!r}, and {case.stdout[:_SHOWN]!r} is expected"
            return "the program wrote something else than expected", f"{given} {wanted}"
    return None


def _why(ended: Ended, wall_s: float) -> str:
    match ended.over:
        case "time":
            return f"the program took more than {wall_s:g} s"
        case "output":
            return "the program wrote more than a megabyte"
    return f"the program ended with exit code {ended.code} before its tests did"


def _last_line(stderr: bytes) -> str:
    lines = stderr.decode(errors="replace").strip().splitlines()
    return f": {lines[-1][:_SHOWN]}" if lines else ""


def _trimmed(text: str) -> list[str]:
    return [line.rstrip() for line in text.strip().splitlines()]
