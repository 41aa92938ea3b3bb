"""Asks a process of its own for one JSON object, which may also be a refusal."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping

from ponder.domain.storable import JsonObject
from ponder.errors import Conflict, InvalidInput, LimitReached, NotFound, PonderError, Unreachable
from ponder.failure import brief
from ponder.jobs.validation.limited_process import LimitedProcess, ProcessEnded

_REFUSALS: Mapping[str, tuple[type[PonderError], tuple[str, ...]]] = {
    "invalid_input": (InvalidInput, ("param", "code")),
    "not_found": (NotFound, ("param",)),
    "conflict": (Conflict, ()),
    "limit_reached": (LimitReached, ("code", "retry_after_s", "is_passing")),
}
"""The errors that cross the line between the processes, with their fields beside the message."""


def ask(function: Callable[[bytes], bytes], asked: JsonObject, *, patience_s: float, what: str) -> JsonObject:
    """Returns what `function`, which ends with `answering`, answers in a process that is stopped after `patience_s`.

    Raises the error with which `function` refused, InvalidInput if it takes too long, and Unreachable if it broke off
    for another reason. `what` is the noun for messages, such as "the estimate".
    """
    process = LimitedProcess(function)
    try:
        process.send(json.dumps(asked).encode())
        answer = process.receive(patience_s)
    except ProcessEnded:
        answer = None
    finally:
        process.end()
    if answer is None:
        raise InvalidInput("reading the file takes too long", param="input_file_id", code="too_expensive")
    document: JsonObject = json.loads(answer)
    if "failure" in document:
        raise Unreachable(f"{what} broke off: {document['failure']}")
    if "refusal" in document:
        kind, _ = _REFUSALS[document["refusal"]]
        raise kind(document["message"], **document["fields"])
    return document


def answering(work: Callable[[], JsonObject]) -> bytes:
    """Runs in the process. Returns what `work` returns, or its refusal, or the reason why it broke off."""
    try:
        found = work()
    except Exception as error:  # also that the database is away
        return json.dumps(_refusal(error) or {"failure": brief(error)}).encode()
    return json.dumps(found).encode()


def _refusal(error: Exception) -> JsonObject | None:
    for name, (kind, fields) in _REFUSALS.items():
        if isinstance(error, kind):
            told = {field: getattr(error, field) for field in fields}
            return {"refusal": name, "message": str(error), "fields": told}
    return None
