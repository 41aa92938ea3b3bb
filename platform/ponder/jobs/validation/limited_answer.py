"""Asks a process of its own for one JSON object, which may also be a refusal."""

from __future__ import annotations

import json
from collections.abc import Callable

from ponder.domain.storable import JsonObject
from ponder.errors import InvalidInput, Unreachable
from ponder.failure import brief
from ponder.jobs.validation.limited_process import LimitedProcess, ProcessEnded


def ask(function: Callable[[bytes], bytes], asked: JsonObject, *, patience_s: float, what: str) -> JsonObject:
    """Returns what `function`, which ends with `answering`, answers in a process that is stopped after `patience_s`.

    Raises InvalidInput for a refusal or if it takes too long, and Unreachable if it broke off for another reason.
    `what` is the noun for messages, such as "the estimate".
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
        raise InvalidInput(**document["refusal"])
    return document


def answering(work: Callable[[], JsonObject]) -> bytes:
    """Runs in the process. Returns what `work` returns, or its refusal, or the reason why it broke off."""
    try:
        found = work()
    except InvalidInput as error:
        refusal = {"message": error.message, "param": error.param, "code": error.code}
        return json.dumps({"refusal": refusal}).encode()
    except Exception as error:  # the database is away, say
        return json.dumps({"failure": brief(error)}).encode()
    return json.dumps(found).encode()
