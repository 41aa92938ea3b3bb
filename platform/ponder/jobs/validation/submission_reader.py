"""Reads submissions outside the serving process, because a body's length says little about its cost."""

from __future__ import annotations

import json
import threading
from dataclasses import asdict

from pydantic import ValidationError

from ponder.domain.batch.refusal import explain
from ponder.domain.batch.submission import Submission
from ponder.domain.structure_check import check_structure
from ponder.domain.verifier_check import check_verifier, needs_check
from ponder.errors import InvalidInput
from ponder.jobs.validation.check_limits import CheckLimits, too_expensive
from ponder.jobs.validation.limited_process import LimitedProcess, ProcessEnded, TookTooLong, within

_SMALL_BYTES = 16 * 1024
"""Bodies up to this size take a few milliseconds to read, whatever they contain."""
_START_S = 30.0
_PATIENCE = 10.0
"""Wall-clock seconds per second of the limit, for a busy machine and for C code, which cannot be interrupted."""


class SubmissionReader:
    """A reader of submissions in one process, started on first use and again after it has ended. Thread-safe."""

    def __init__(self, limits: CheckLimits) -> None:
        self._limits = limits
        self._header = json.dumps(asdict(limits)).encode() + b"\n"
        self._lock = threading.Lock()
        self._process: LimitedProcess | None = None

    def read(self, body: bytes) -> Submission:
        """Raises InvalidInput if the body is not a submission, or if checking it takes too long."""
        if len(body) <= _SMALL_BYTES:
            submission = _read(body)
            if submission.ponder.structure is None and not needs_check(submission.ponder.verifier):
                return submission
        with self._lock:
            answer = json.loads(self._ask(self._header + body))
        if "refusal" in answer:
            raise InvalidInput(**answer["refusal"])
        return Submission.model_validate(answer["submission"])

    def close(self) -> None:
        with self._lock:
            self._end()

    def _ask(self, request: bytes) -> bytes:
        for _ in range(2):  # the process may have been killed since the last request
            try:
                if self._process is None:
                    self._process = LimitedProcess(answer_body)
                self._process.send(request)
                answer = self._process.receive(_START_S + _PATIENCE * self._limits.line_s)
            except ProcessEnded:
                self._end()
                continue
            if answer is not None:
                return answer
            self._end()
            break
        return _refusal(too_expensive(self._limits.line_s))

    def _end(self) -> None:
        if self._process is not None:
            self._process.end()
            self._process = None


def answer_body(request: bytes) -> bytes:
    """Runs in the other process. Returns the submission as it was read, or the refusal."""
    header, _, body = request.partition(b"\n")
    limits = CheckLimits.from_document(json.loads(header))
    try:
        with within(limits.line_s):
            submission = _read(body)
            check_verifier(submission.ponder.verifier, limits.verifier, "ponder.verifier")
            if submission.ponder.structure is not None:
                document = submission.ponder.structure.document()
                check_structure(document, limits.verifier, f"ponder.structure.{next(iter(document))}")
            return b'{"submission": %b}' % submission.model_dump_json(by_alias=True, exclude_unset=True).encode()
    except InvalidInput as error:
        return _refusal(error)
    except (TookTooLong, MemoryError):
        return _refusal(too_expensive(limits.line_s))


def _read(body: bytes) -> Submission:
    try:
        return Submission.model_validate(json.loads(body))
    except ValidationError as error:
        raise explain(error) from None
    except json.JSONDecodeError as error:
        raise InvalidInput(f"the body is not JSON: {error.msg} at column {error.colno}", code="invalid_json") from None
    except (ValueError, RecursionError):
        raise InvalidInput(
            "the body is not JSON: it is not UTF-8, too large or too deep", code="invalid_json"
        ) from None


def _refusal(error: InvalidInput) -> bytes:
    refusal = {"message": error.message, "param": error.param, "code": error.code}
    return json.dumps({"refusal": refusal}).encode()
