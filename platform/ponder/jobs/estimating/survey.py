"""Reads the lines of a batch file that is not submitted, and adds up jobs that are alike."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, field

from sqlalchemy import Connection, Engine, text

from ponder.domain.batch.line import decode, split
from ponder.domain.batch.request import JobRequest, Terms, parse, refuse_told
from ponder.domain.forecast.histogram import bin_of
from ponder.domain.strategy import STRATEGY
from ponder.errors import InvalidInput, InvalidLine
from ponder.jobs.estimating.sizer import JobSize, Sizer

MOST_READ = 10_000
"""A longer file is taken to be like the lines that are read of it, which lie at equal distances."""

_CHUNK = text("SELECT data FROM file_chunks WHERE file_id = :id AND ordinal = :ordinal")


@dataclass(slots=True)
class JobGroup:
    """Jobs of one cell that are alike. `cap` and `prompt_bytes` are sums over them."""

    size: JobSize
    model: str
    is_scored: bool
    num_jobs: int = 0
    cap: float = 0.0
    prompt_bytes: int = 0
    prompt_ids: int = 0


@dataclass(slots=True)
class Survey:
    """The jobs that a file would become, `scale` times those that were read."""

    num_lines: int = 0
    num_read: int = 0
    num_refused: int = 0
    refusal: str | None = None
    """The first one."""
    groups: dict[tuple[object, ...], JobGroup] = field(default_factory=dict)

    @property
    def scale(self) -> float:
        return self.num_lines / self.num_read if self.num_read else 1.0

    def add(self, size: JobSize, request: JobRequest) -> None:
        key = (size.key, size.samples, bin_of(size.cap))
        group = self.groups.setdefault(key, JobGroup(size, request.model.name, _is_scored(request)))
        group.num_jobs += 1
        group.cap += size.cap
        group.prompt_bytes += size.prompt_bytes
        group.prompt_ids += size.prompt_ids


def survey(
    engine: Engine, file_id: str, terms: Terms, sizer: Sizer, line: Callable[[], AbstractContextManager[None]]
) -> Survey:
    """Reads a file as `validate` would, except that it does not look for repeated custom ids.

    Each line is read inside the context manager that `line` returns, which may raise InvalidInput, as LineClock does.
    """
    with engine.connect() as pooled:
        reader = pooled.execution_options(isolation_level="AUTOCOMMIT")
        found = Survey(num_lines=sum(1 for _ in split(_chunks(reader, file_id))))
        step = -(-found.num_lines // MOST_READ) or 1
        first = secrets.randbelow(step)
        for index, (number, content) in enumerate(split(_chunks(reader, file_id))):
            if index % step == first:
                found.num_read += 1
                try:
                    with line():
                        value = decode(content, number)
                        refuse_told(value, number)
                        request = parse(value, number, terms)
                        found.add(sizer.size(request), request)
                except (InvalidLine, InvalidInput) as error:
                    found.num_refused += 1
                    found.refusal = found.refusal or f"line {number}: {error.message}"
    return found


def _is_scored(request: JobRequest) -> bool:
    """Returns whether a reward model reads what the job generates."""
    return request.model.has_reward_model and STRATEGY.validate_python(request.document["strategy"]).uses_scores


def _chunks(connection: Connection, file_id: str) -> Iterator[bytes]:
    ordinal = 0
    while (data := connection.execute(_CHUNK, {"id": file_id, "ordinal": ordinal}).scalar()) is not None:
        yield bytes(data)
        ordinal += 1
