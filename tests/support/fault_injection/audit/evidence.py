"""The evidence of a run beside its database: what was submitted, what came back, and which faults hit what."""

from __future__ import annotations

import json
import re
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fault_injection.testbed import Testbed
from fault_injection.workload import Submission
from process_tree import command_of

_GONE_WITHIN_S = 10.0
Lines = list[dict[str, Any]]


@dataclass(frozen=True, slots=True)
class Evidence:
    """The evidence of a run. outputs, errors: the lines of each batch's files.

    hits: the faults that should have ended a worker, by its process id.
    """

    submissions: Sequence[Submission]
    outputs: Mapping[str, Lines]
    errors: Mapping[str, Lines]
    hits: Mapping[int, Sequence[str]]
    strays: Sequence[str]
    """Processes that belonged to no service at the end, or outlived all of them."""
    num_starts: Mapping[str, int]
    logged_errors: Mapping[str, int]
    """By service and event."""
    not_verified: Mapping[str, int]
    """The reasons that workers logged for answers without a verdict. A worker logs each reason once."""


def gather(testbed: Testbed, submissions: Sequence[Submission]) -> Evidence:
    """Reads the files over the API, then stops the services; Postgres and Redis stay."""
    outputs, errors = {}, {}
    for one in submissions:
        outputs[one.batch_id], errors[one.batch_id] = _files(testbed, one)
    strays = _lasting(testbed)
    testbed.stop_services()
    strays += _lasting(testbed)
    return Evidence(
        submissions=submissions,
        outputs=outputs,
        errors=errors,
        hits=dict(testbed.hits),
        strays=strays,
        num_starts={name: service.num_starts for name, service in testbed.services.items()},
        logged_errors=Counter(_errors(testbed)),
        not_verified=Counter(
            str(entry.get("reason"))
            for service in testbed.services.values()
            for entry in _entries(service.log)
            if entry.get("event") == "not_verified"
        ),
    )


def _files(testbed: Testbed, submission: Submission) -> tuple[Lines, Lines]:
    with testbed.client(submission.tenant) as client:
        batch = client.batch(submission.batch_id)
        found: list[Lines] = []
        for file_id in (batch["output_file_id"], batch["error_file_id"]):
            if file_id is None:
                found.append([])
                continue
            with client.download(file_id) as pieces:
                found.append([json.loads(line) for line in b"".join(pieces).splitlines()])
    return found[0], found[1]


def _lasting(testbed: Testbed) -> list[str]:
    """Strays that do not go soon."""
    give_up_at = time.monotonic() + _GONE_WITHIN_S
    while (pids := testbed.strays()) and time.monotonic() < give_up_at:
        time.sleep(0.2)
    return [command_of(pid) for pid in pids]


def _errors(testbed: Testbed) -> Iterator[str]:
    """Yields the errors that the services logged. Of a library's message it takes the words before any id or detail."""
    for name, service in testbed.services.items():
        for entry in _entries(service.log):
            if entry.get("level") in ("error", "critical"):
                event = re.split(r"[:,]| '", str(entry.get("event")))[0]
                yield f"{name.rstrip('-0123456789')}: {event}"


def _entries(log: Path) -> Iterator[dict[str, Any]]:
    for line in log.read_text(errors="replace").splitlines():
        try:
            entry = json.loads(line)
        except ValueError:
            continue
        if isinstance(entry, dict):
            yield entry
