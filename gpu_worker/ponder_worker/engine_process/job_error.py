"""What a job that failed tells: a stable word for programs, and a message that holds nothing of the prompt."""

from __future__ import annotations

from typing import Any

from pydantic import ValidationError

from ponder_worker.engine import EngineError
from ponder_worker.models.errors import InvalidConversation
from ponder_worker.search.search_error import InvalidRequest, SearchError

EXPECTED = (SearchError, EngineError, InvalidConversation, ValidationError)
"""What a request may bring about; everything else is our own bug."""


def unreadable(job_id: int, error: Exception) -> dict[str, Any]:
    """The entry of a report for a job whose document could not even be read."""
    names = ("prompt", "completion", "thinking", "reward", "cached", "recomputed")
    return {
        "job_id": job_id,
        "error": {"code": InvalidRequest.code, "message": f"the request cannot be read: {type(error).__name__}"},
        "finish_reason": None,
        "choices": [],
        "usage": {f"{name}_tokens": 0 for name in names},
        "tree": {"nodes": [], "candidates": [], "chosen": None},
    }


def as_error(error: BaseException) -> dict[str, str]:
    match error:
        case SearchError():
            return {"code": error.code, "message": str(error)}
        case EngineError():
            return {"code": InvalidRequest.code, "message": str(error)}
        case InvalidConversation():
            return {"code": "invalid_conversation", "message": str(error)}
        case ValidationError():
            fields = ", ".join(".".join(map(str, detail["loc"])) or "it" for detail in error.errors())
            return {"code": InvalidRequest.code, "message": f"the request cannot be read: {fields}"}
    return {"code": "internal_error", "message": f"{type(error).__name__} in the engine process; see the worker's log"}
