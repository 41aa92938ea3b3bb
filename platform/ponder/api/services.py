"""The objects that routes work with, and the checks that they share."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated

from fastapi import Depends, Request
from sqlalchemy import Engine

from ponder.api.tenant_limits import TenantLimits
from ponder.errors import NotFound
from ponder.jobs.validation.submission_reader import SubmissionReader
from ponder.settings import Settings
from ponder.trace import Tracer

_IDS = {
    "file": re.compile(r"file-[0-9a-f]{1,64}"),
    "batch": re.compile(r"batch_[0-9a-f]{1,64}"),
    "job": re.compile(r"job_[0-9]{1,18}"),
    "key": re.compile(r"key_[0-9a-f]{1,64}"),
    "tenant": re.compile(r"tenant_[0-9a-f]{1,64}"),
    "bench run": re.compile(r"bench_[0-9a-f]{1,64}"),
}


@dataclass(frozen=True, slots=True)
class Services:
    engine: Engine
    redis_url: str
    settings: Settings
    reader: SubmissionReader
    limits: TenantLimits
    tracer: Tracer | None


def _services(request: Request) -> Services:
    services = request.app.state.services
    assert isinstance(services, Services)
    return services


Ponder = Annotated[Services, Depends(_services)]


def identifier(value: str, kind: str, param: str | None = None) -> str:
    """Returns an id that may exist. Raises NotFound for text that cannot be an id, which must not reach Postgres.

    `param` is the name of the parameter, by default `batch_id` and so on.
    """
    if not _IDS[kind].fullmatch(value):
        raise NotFound(f"there is no such {kind}", param=param or f"{kind}_id")
    return value


def job_number(value: str, param: str | None = None) -> int:
    """Returns the number of a job in Postgres from its id."""
    return int(identifier(value, "job", param).removeprefix("job_"))


def seconds(at: datetime | None) -> float | None:
    """Returns a moment in Unix time, to the microsecond."""
    return None if at is None else at.timestamp()


def unix(at: datetime | None) -> int | None:
    return None if at is None else int(at.timestamp())
