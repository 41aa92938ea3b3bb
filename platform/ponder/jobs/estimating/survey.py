"""Adds up jobs that are alike: those of a file that is not submitted, or of a batch, which keeps its survey."""

from __future__ import annotations

import secrets
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, field, replace

from sqlalchemy import Connection, Engine, text

from ponder.domain.batch.line import decode, split
from ponder.domain.batch.request import JobRequest, Terms, parse, refuse_told
from ponder.domain.forecast.histogram import bin_of
from ponder.domain.forecast.lengths import CellKey
from ponder.domain.storable import JsonObject
from ponder.domain.strategy import STRATEGY
from ponder.errors import InvalidInput, InvalidLine
from ponder.jobs.estimating.sizer import JobSize, Sizer
from ponder.store.document import dumps

MOST_READ = 10_000
"""A longer file is taken to be like the lines that are read of it, which lie at equal distances."""
MOST_GROUPS = 64
"""Jobs of later groups count in one group for each model, so that a batch is projected fast."""

_STORE = text("INSERT INTO surveys (batch_id, document) VALUES (:batch_id, CAST(:document AS jsonb))")
_STORED = text("SELECT document FROM surveys WHERE batch_id = :batch_id")
_CHUNK = text("SELECT data FROM file_chunks WHERE file_id = :id AND ordinal = :ordinal")


@dataclass(slots=True)
class JobGroup:
    """Jobs of one cell that are alike. `cap` and `prompt_bytes` are sums over them."""

    size: JobSize
    model: str
    is_scored: bool
    num_jobs: float = 0
    cap: float = 0.0
    prompt_bytes: float = 0
    prompt_ids: float = 0

    def part(self, share: float) -> JobGroup:
        """Returns a group of fewer such jobs."""
        return replace(
            self,
            num_jobs=self.num_jobs * share,
            cap=self.cap * share,
            prompt_bytes=self.prompt_bytes * share,
            prompt_ids=self.prompt_ids * share,
        )


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

    @property
    def cells(self) -> set[CellKey]:
        return {group.size.key for group in self.groups.values()}

    @property
    def fingerprints(self) -> set[str]:
        return {group.size.key[0] for group in self.groups.values()}

    def add(self, size: JobSize, request: JobRequest) -> None:
        key = (size.key, size.samples, bin_of(size.cap))
        group = self.groups.get(key) or self._begin(key, size, request)
        group.num_jobs += 1
        group.cap += size.cap * size.samples / group.size.samples
        group.prompt_bytes += size.prompt_bytes
        group.prompt_ids += size.prompt_ids

    def remaining(self, settled: Mapping[CellKey, float], num_pending: int) -> Survey:
        """Returns the survey of the jobs that are left, by the number of settled jobs of each cell.

        Those that no cell accounts for, because they failed, are taken from all cells alike. If no cell has any left,
        because jobs were observed in others (see `observe.MOST_CELLS`), all have the same share.
        """
        jobs: dict[CellKey, float] = defaultdict(float)
        for group in self.groups.values():
            jobs[group.size.key] += group.num_jobs
        left = {key: max(number - settled.get(key, 0.0), 0.0) for key, number in jobs.items()}
        if not any(left.values()):
            left = dict(jobs)
        scale = num_pending / sum(left.values())
        shares = {key: scale * left[key] / number for key, number in jobs.items()}
        groups = {key: group.part(shares[group.size.key]) for key, group in self.groups.items()}
        return Survey(num_pending, num_pending, groups={key: group for key, group in groups.items() if group.num_jobs})

    def pinned(self, fingerprints: Mapping[str, str]) -> Survey:
        """Returns the survey of the same jobs with other weights, by the model's name."""

        def pin(group: JobGroup) -> JobGroup:
            fingerprint = fingerprints.get(group.model, group.size.key[0])
            return replace(group, size=replace(group.size, key=(fingerprint, *group.size.key[1:])))

        return replace(self, groups={(number,): pin(group) for number, group in enumerate(self.groups.values())})

    def _begin(self, key: tuple[object, ...], size: JobSize, request: JobRequest) -> JobGroup:
        if len(self.groups) >= MOST_GROUPS:
            key, size = (size.key[0],), replace(size, key=(size.key[0], "", ""))
        return self.groups.setdefault(key, JobGroup(size, request.model.name, _is_scored(request)))


def store_survey(connection: Connection, batch_id: str, survey: Survey) -> None:
    """Keeps the survey of a new batch."""
    document = asdict(survey) | {"groups": [asdict(group) for group in survey.groups.values()]}
    connection.execute(_STORE, {"batch_id": batch_id, "document": dumps(document)})


def stored_survey(connection: Connection, batch_id: str) -> Survey | None:
    """Returns the survey of a batch, or None if it was begun before surveys were kept."""
    document = connection.execute(_STORED, {"batch_id": batch_id}).scalar()
    if document is None:
        return None
    groups = {(number,): _group(group) for number, group in enumerate(document["groups"])}
    return Survey(**document | {"groups": groups})


def _group(document: JsonObject) -> JobGroup:
    size = document["size"]
    fingerprint, strategy, level = size["key"]
    return JobGroup(**document | {"size": JobSize(**size | {"key": (fingerprint, strategy, level)})})


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
