"""Notices of Google Compute Engine, as its documentation describes them:

https://cloud.google.com/compute/docs/instances/create-use-spot
https://cloud.google.com/compute/docs/metadata/getting-live-migration-notice
https://cloud.google.com/compute/docs/metadata/querying-metadata
https://cloud.google.com/compute/docs/gpus/gpu-host-maintenance
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from datetime import datetime
from pathlib import Path

from ponder_worker.parent.notices.metadata_service import Answer, MetadataService, NoAnswer
from ponder_worker.parent.notices.notice import Notice, Reason

_INSTANCE = "/computeMetadata/v1/instance/"
_HEADERS = {"Metadata-Flavor": "Google"}
_WITHIN_S = 2.0
_WAIT_S = 10
"""How long the server may hold a request for a change; the other key is asked for in between."""
_NO_ETAG = "0"
_LEAVE_BEFORE_S = 10.0
_LONGEST_DRAIN_S = 120.0
_WARNING_S, _GPU_WARNING_S = 60.0, 3_600.0
"""Maintenance begins so long after it is announced; it ends machines with a GPU, which cannot be migrated."""
_KINDS = {"MIGRATE_ON_HOST_MAINTENANCE": "migrate", "TERMINATE_ON_HOST_MAINTENANCE": "terminate"}
"""The announcements of maintenance, and what metrics call them."""


class Gcp:
    """The metadata server, which answers a request for `preempted` once its value has changed."""

    name = "gcp"
    pause_s = 1.0

    def __init__(self, service: MetadataService, clock: Callable[[], datetime], *, has_gpu: bool | None = None) -> None:
        """Looks for a GPU of the machine unless told whether it has one."""
        self._service = service
        self._clock = clock
        self._warning_s = _GPU_WARNING_S if (_has_gpu() if has_gpu is None else has_gpu) else _WARNING_S
        self._etag = _NO_ETAG
        self._maintenance: str | None = None
        self._announced_at: datetime | None = None

    async def is_here(self) -> bool:
        """Returns whether this is an instance of Compute Engine. Raises NoAnswer."""
        await self._get("id")
        return True

    async def look(self) -> Notice | None:
        """Returns a notice, or a recommendation to leave because of maintenance that was announced since the first
        look.

        Maintenance that had been announced before is none: how long ago is unknown, and a worker that left because of
        it would be started here again. Waits for some seconds. Raises NoAnswer.
        """
        if await self._is_preempted():
            return Notice.preempting(self.name, "preempted")
        # Asking for it is also what makes the server announce maintenance a minute before.
        event = _one_of(await self._get("maintenance-event"), ("NONE", *_KINDS))
        before, self._maintenance = self._maintenance, event
        if before is not None and event != before:
            self._announced_at = self._clock()
        if event == "NONE" or self._announced_at is None:
            return None
        return self._recommendation(_KINDS[event], self._announced_at)

    def _recommendation(self, kind: str, announced_at: datetime) -> Notice | None:
        """Returns None as long as the maintenance is far away: until then this machine is worth its price."""
        warning_s = self._warning_s if kind == "terminate" else _WARNING_S
        left_s = max(0.0, warning_s - (self._clock() - announced_at).total_seconds())
        drain_s = left_s - _LEAVE_BEFORE_S
        if drain_s > _LONGEST_DRAIN_S:
            return None
        if kind == "migrate":
            return Notice(Reason.DRAINED, "gcp migration recommendation", max(0.0, drain_s), self.name, kind)
        detail = f"gcp maintenance notice, {left_s:.0f} s before"
        return Notice(Reason.DRAINED, detail, max(0.0, drain_s), self.name, kind, left_s)

    async def _is_preempted(self) -> bool:
        """Returns at once if the value has changed since it was last asked for."""
        wanted = {"wait_for_change": "true", "timeout_sec": str(_WAIT_S), "last_etag": self._etag}
        answer = await self._get("preempted", wanted, within_s=_WAIT_S + 5.0)
        value = _one_of(answer, ("TRUE", "FALSE"))
        etag = answer.headers.get("etag", "")
        self._etag = etag if re.fullmatch("[!-~]{1,100}", etag) else _NO_ETAG
        return value == "TRUE"

    async def _get(self, key: str, params: Mapping[str, str] | None = None, within_s: float = _WITHIN_S) -> Answer:
        answer = await self._service.ask("GET", _INSTANCE + key, headers=_HEADERS, params=params, within_s=within_s)
        answer.check()
        if answer.headers.get("metadata-flavor") != "Google":
            raise NoAnswer("it is not Google's")
        return answer


def _has_gpu() -> bool:
    return any(Path("/dev").glob("nvidia[0-9]*"))


def _one_of(answer: Answer, values: tuple[str, ...]) -> str:
    if answer.text not in values:
        raise NoAnswer(f"it answered {answer.text[:100]!r}")
    return answer.text
