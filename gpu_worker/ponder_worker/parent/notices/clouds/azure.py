"""Notices of Azure, as its documentation describes them:

https://learn.microsoft.com/azure/virtual-machines/linux/scheduled-events
https://learn.microsoft.com/azure/virtual-machines/instance-metadata-service
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from functools import partial

import structlog
from pydantic import BaseModel, Field

from ponder_worker.parent.notices.metadata_service import Answer, MetadataService, NoAnswer
from ponder_worker.parent.notices.notice import Notice, Reason

_log = structlog.get_logger(__name__)

_COMPUTE = "/metadata/instance/compute"
_COMPUTE_PARAMS = {"api-version": "2021-02-01"}
_EVENTS = "/metadata/scheduledevents"
_EVENTS_PARAMS = {"api-version": "2020-07-01"}
_HEADERS = {"Metadata": "true"}
_WITHIN_S = 2.0
_EVENTS_WITHIN_S = 10.0
"""The first answer may take up to two minutes; until it comes it is asked for again."""
_ACKNOWLEDGED_WITHIN_S = 0.5
_LEAVE_BEFORE_S = 15.0
_DRAIN_S = 120.0
"""Events other than an eviction are announced minutes or days before. So much of that time is for draining."""
_ENDING = ("Preempt", "Terminate", "Redeploy", "Reboot")
"""The types of events that end a worker; `Freeze` pauses the machine for some seconds."""


class _Machine(BaseModel):
    name: str = Field(min_length=1)
    vm_id: str = Field(alias="vmId", min_length=1)


class _Event(BaseModel):
    id: str = Field(alias="EventId")
    type: str = Field(alias="EventType")
    status: str = Field(alias="EventStatus")
    resources: list[str] = Field(alias="Resources")
    not_before: str | None = Field(alias="NotBefore", default=None)


class _Events(BaseModel):
    events: list[_Event] = Field(alias="Events")


class Azure:
    """The instance metadata service, whose events are told to every machine of a set."""

    name = "azure"
    pause_s = 1.0

    def __init__(self, service: MetadataService, clock: Callable[[], datetime]) -> None:
        self._service = service
        self._clock = clock
        self._machine: str | None = None

    async def is_here(self) -> bool:
        """Returns whether this is a virtual machine of Azure. Raises NoAnswer."""
        await self._find_name()
        return True

    async def look(self) -> Notice | None:
        """Returns the gravest notice about this machine that is due. Raises NoAnswer."""
        machine = self._machine or await self._find_name()
        answer = await self._ask("GET", _EVENTS, _EVENTS_PARAMS, _EVENTS_WITHIN_S)
        own = [
            event
            for event in answer.read(_Events).events
            if machine.casefold() in (name.casefold() for name in event.resources)
        ]
        found = [notice for event in own if (notice := self._notice(event)) is not None]
        return min(found, key=lambda notice: notice.reason is Reason.DRAINED, default=None)

    def _notice(self, event: _Event) -> Notice | None:
        """Returns None if the event ends nothing, or is not due: until then this machine is worth its price."""
        if event.type not in _ENDING:
            return None
        left_s = self._seconds_until(event)
        if event.type == "Preempt":
            acknowledge = partial(self._acknowledge, event.id) if event.status == "Scheduled" else None
            return Notice.preempting(self.name, "preempt", left_s, acknowledge)
        kind = event.type.lower()
        if left_s is None or left_s <= _LEAVE_BEFORE_S:
            return Notice.preempting(self.name, kind, left_s)
        drain_s = left_s - _LEAVE_BEFORE_S
        if drain_s > _DRAIN_S:
            return None
        return Notice(Reason.DRAINED, f"azure {kind} notice, {left_s:.0f} s before", drain_s, self.name, kind, left_s)

    def _seconds_until(self, event: _Event) -> float | None:
        """Returns None for an event that has begun. Raises NoAnswer if its time cannot be read."""
        if event.status != "Scheduled" or not event.not_before:
            return None
        try:
            at = parsedate_to_datetime(event.not_before)
        except (ValueError, OverflowError) as error:
            raise NoAnswer(f"its event is not before {event.not_before[:100]!r}") from error
        return ((at if at.tzinfo else at.replace(tzinfo=UTC)) - self._clock()).total_seconds()

    def _acknowledge(self, event_id: str) -> None:
        """Tells Azure that it need not wait for this machine. If it cannot be told, it waits for its own time."""
        body = json.dumps({"StartRequests": [{"EventId": event_id}]}).encode()
        try:
            asyncio.run(self._ask("POST", _EVENTS, _EVENTS_PARAMS, _ACKNOWLEDGED_WITHIN_S, body))
        except NoAnswer as error:
            _log.warning("notice_not_acknowledged", event_id=event_id, error=str(error))

    async def _find_name(self) -> str:
        answer = await self._ask("GET", _COMPUTE, _COMPUTE_PARAMS, _WITHIN_S)
        self._machine = answer.read(_Machine).name
        return self._machine

    async def _ask(
        self, method: str, path: str, params: dict[str, str], within_s: float, body: bytes | None = None
    ) -> Answer:
        answer = await self._service.ask(method, path, headers=_HEADERS, params=params, within_s=within_s, body=body)
        answer.check()
        return answer
