"""Tells open pages that what they show has changed. A page then asks for itself again, as any other request.

One task asks Postgres for all open pages together, so that a page costs next to nothing while nothing happens, and no
content is ever in a stream.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from enum import StrEnum

import structlog
from sqlalchemy import Engine, TextClause, text
from starlette.concurrency import run_in_threadpool

from ponder.failure import message

_log = structlog.get_logger(__name__)

_ROUND_S = 1.0
HEARTBEAT_S = 15.0
"""Shorter than the patience of usual proxies."""


class TopicKind(StrEnum):
    TENANT = "tenant"
    BATCH = "batch"
    JOB = "job"
    FLEET = "fleet"


@dataclass(frozen=True, slots=True)
class Topic:
    """Something that pages show: all batches of a tenant, one batch, one job, or the fleet (whose id is empty)."""

    kind: TopicKind
    id: str = ""


_BATCH_VERSION = """
    concat_ws('|', batches.state, paused_at, exhausted_at, expires_at, limit_tokens, limit_nanodollars,
              (SELECT max(tallies.id) FROM tallies WHERE tallies.batch_id = batches.id),
              (SELECT num_completed + num_failed + num_expired + num_cancelled
               FROM batch_totals WHERE batch_totals.batch_id = batches.id),
              (SELECT max(held_at) FROM shards WHERE shards.batch_id = batches.id AND shards.state <> 'finished'))"""
_VERSIONS: dict[TopicKind, TextClause] = {
    TopicKind.BATCH: text(f"SELECT id, {_BATCH_VERSION} AS version FROM batches WHERE id = ANY(CAST(:ids AS text[]))"),
    TopicKind.TENANT: text(
        f"""
        SELECT tenant.id, concat_ws('|',
            (SELECT max(created_at) FROM batches WHERE tenant_id = tenant.id),
            (SELECT md5(string_agg(id || {_BATCH_VERSION}, ',' ORDER BY id)) FROM batches
             WHERE tenant_id = tenant.id AND state IN ('validating', 'in_progress', 'cancelling'))) AS version
        FROM unnest(CAST(:ids AS text[])) AS tenant(id)
        """
    ),
    TopicKind.JOB: text(
        """
        SELECT CAST(id AS text) AS id, concat_ws('|', state,
            (SELECT max(tree_deltas.id) FROM tree_deltas WHERE job_id = jobs.id),
            (SELECT count(*) || ':' || count(ended_at) FROM attempts WHERE job_id = jobs.id)) AS version
        FROM jobs WHERE id = ANY(CAST(:ids AS bigint[]))
        """
    ),
    TopicKind.FLEET: text(
        """
        SELECT '' AS id, concat_ws('|', (SELECT max(id) FROM fleet_decisions),
            (SELECT md5(string_agg(id || state || num_ticks / 3, ',' ORDER BY id)) FROM incarnations
             WHERE state <> 'ended')) AS version
        """
    ),
}


@dataclass(slots=True)
class _Watched:
    """A topic of open pages."""

    version: str | None = None
    pages: set[asyncio.Event] = field(default_factory=set)
    joined: set[asyncio.Event] = field(default_factory=set)
    """Pages since the last round. They ask again once, because something may have changed since they were rendered."""

    def note(self, version: str | None) -> None:
        """Wakes all pages if the version is a new one, else those that have joined. None: it is not known."""
        if version is None:
            return
        awaited = self.joined if self.version in (None, version) else self.pages
        self.version = version
        for event in awaited:
            event.set()
        self.joined.clear()


class ChangeFeed:
    """Watches the topics of open pages. Belongs to one event loop."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._watched: dict[Topic, _Watched] = {}
        self._rounds: asyncio.Task[None] | None = None

    async def stream(self, topic: Topic, *, lasts_s: float) -> AsyncIterator[bytes]:
        """Yields server-sent events: `changed` after every change of the topic, and comments that keep it alive.

        It ends after `lasts_s`, whereupon a browser comes again and shows that it is still signed in.
        """
        event = asyncio.Event()
        watched = self._watched.setdefault(topic, _Watched())
        watched.pages.add(event)
        watched.joined.add(event)
        if self._rounds is None or self._rounds.done():
            self._rounds = asyncio.create_task(self._watch())
        ends_at = asyncio.get_running_loop().time() + lasts_s
        try:
            yield b"retry: 2000\n\n"
            while (left_s := ends_at - asyncio.get_running_loop().time()) > 0:
                with suppress(TimeoutError):
                    await asyncio.wait_for(event.wait(), min(HEARTBEAT_S, left_s))
                if event.is_set():
                    event.clear()
                    yield b"event: changed\ndata:\n\n"
                    await asyncio.sleep(_ROUND_S)  # a page that changes all the time is not rendered all the time
                else:
                    yield b":\n\n"
        finally:
            watched.pages.discard(event)
            watched.joined.discard(event)
            if not watched.pages:
                self._watched.pop(topic, None)

    async def _watch(self) -> None:
        """Looks once a second for as long as a page is open. After a failure the next round asks again."""
        is_failing = False
        while self._watched:
            topics = list(self._watched)
            try:
                versions = await run_in_threadpool(self._versions, topics)
                is_failing = False
            except Exception as error:  # drivers raise what neither SQLAlchemy nor the system does
                if not is_failing:
                    _log.warning("pages are not told of changes", error=message(error))
                is_failing, versions = True, {}
            for topic, watched in self._watched.items():
                watched.note(versions.get(topic))
            await asyncio.sleep(_ROUND_S)

    def _versions(self, topics: Iterable[Topic]) -> dict[Topic, str]:
        """Returns what changes whenever a topic does, with one query for each kind of topic."""
        ids: dict[TopicKind, list[str]] = {}
        for topic in topics:
            ids.setdefault(topic.kind, []).append(topic.id)
        versions: dict[Topic, str] = {}
        with self._engine.connect() as connection:
            for kind, of_kind in ids.items():
                values = {} if kind is TopicKind.FLEET else {"ids": of_kind}
                for row in connection.execute(_VERSIONS[kind], values):
                    versions[Topic(kind, row.id)] = str(row.version)
        return versions
