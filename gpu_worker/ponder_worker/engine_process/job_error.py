"""The errors that are reported about jobs."""

from __future__ import annotations

from pydantic import ValidationError

from ponder_worker.engine import EngineError
from ponder_worker.models.model_error import InvalidConversation
from ponder_worker.protocol import Document, JobError, JobResult
from ponder_worker.search.search_error import InvalidRequest, SearchError

EXPECTED = (SearchError, EngineError, InvalidConversation, ValidationError)
"""Errors that a request may bring about; everything else is a bug of ours."""


def unreadable(job_id: int, error: Exception) -> JobResult:
    """Returns the result of a job whose documents could not even be read."""
    message = f"the request cannot be read: {type(error).__name__}"
    tree: Document = {"nodes": [], "candidates": [], "chosen": None}
    return JobResult(job_id, JobError(InvalidRequest.code, message), tree=tree)


def job_error(error: BaseException) -> JobError:
    match error:
        case SearchError():
            return JobError(error.code, str(error))
        case EngineError():
            return JobError(InvalidRequest.code, str(error))
        case InvalidConversation():
            return JobError("invalid_conversation", str(error))
        case ValidationError():
            fields = ", ".join(".".join(map(str, detail["loc"])) or "it" for detail in error.errors())
            return JobError(InvalidRequest.code, f"the request cannot be read: {fields}")
    return JobError("internal_error", f"{type(error).__name__} in the engine process; see the worker's log")
