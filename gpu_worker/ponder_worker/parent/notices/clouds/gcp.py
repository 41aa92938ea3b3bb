"""Notices of Google Compute Engine, as its documentation describes them:

https://cloud.google.com/compute/docs/instances/create-use-spot
https://cloud.google.com/compute/docs/metadata/getting-live-migration-notice
https://cloud.google.com/compute/docs/metadata/querying-metadata
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from datetime import datetime

from ponder_worker.parent.notices.metadata_service import Answer, MetadataService, NoAnswer
from ponder_worker.parent.notices.notice import Notice, Reason

_INSTANCE = "/computeMetadata/v1/instance/"
_HEADERS = {"Metadata-Flavor": "Google"}
_WITHIN_S = 2.0
_WAIT_S = 10
"""How long the server may hold a request for a change; the other key is asked for in between."""
_NO_ETAG = "0"
_DRAIN_S = 50.0
"""A live migration begins a minute after it is announced."""
_KINDS = {"MIGRATE_ON_HOST_MAINTENANCE": "migrate", "TERMINATE_ON_HOST_MAINTENANCE": "terminate"}
"""The announcements of maintenance, and what metrics call them."""


class Gcp:
    """The metadata server, which answers a request for `preempted` once its value has changed."""

    name = "gcp"
    pause_s = 1.0

    def __init__(self, service: MetadataService, clock: Callable[[], datetime]) -> None:
        self._service = service
        self._etag = _NO_ETAG
        self._maintenance: str | None = None

    async def is_here(self) -> bool:
        """Returns whether this is an instance of Compute Engine. Raises NoAnswer."""
        await self._get("id")
        return True

    async def look(self) -> Notice | None:
        """Returns a notice, or a recommendation to leave because of a live migration that was announced since the last
        look.

        Waits for some seconds. Raises NoAnswer.
        """
        if await self._is_preempted():
            return Notice.preempting(self.name, "preempted")
        # Asking for it is also what makes the server announce maintenance a minute before.
        event = _one_of(await self._get("maintenance-event"), ("NONE", *_KINDS))
        before, self._maintenance = self._maintenance, event
        if event == "TERMINATE_ON_HOST_MAINTENANCE":
            return Notice.preempting(self.name, _KINDS[event])
        if event == "MIGRATE_ON_HOST_MAINTENANCE" and before == "NONE":
            return Notice(Reason.DRAINED, "gcp migration recommendation", _DRAIN_S, self.name, _KINDS[event])
        return None

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


def _one_of(answer: Answer, values: tuple[str, ...]) -> str:
    if answer.text not in values:
        raise NoAnswer(f"it answered {answer.text[:100]!r}")
    return answer.text
