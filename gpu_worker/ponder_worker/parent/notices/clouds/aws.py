"""Notices of Amazon EC2, as its user guide describes them:

https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/spot-instance-termination-notices.html
https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/rebalance-recommendations.html
https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/configuring-instance-metadata-service.html
"""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import datetime
from typing import Literal

from pydantic import AwareDatetime, BaseModel, Field

from ponder_worker.parent.notices.metadata_service import Answer, MetadataService, NoAnswer
from ponder_worker.parent.notices.notice import Notice, Reason

_ACTION = "/latest/meta-data/spot/instance-action"
_REBALANCE = "/latest/meta-data/events/recommendations/rebalance"
_TOKEN_S = 21_600
_NOTHING = 404
_WITHIN_S = 2.0
_DRAIN_S = 120.0
"""No time comes with a recommendation; this is what the notice of an interruption would leave."""


class _Action(BaseModel):
    action: Literal["terminate", "stop", "hibernate"]
    time: AwareDatetime


class _Recommendation(BaseModel):
    notice_time: AwareDatetime = Field(alias="noticeTime")


class Aws:
    """The instance metadata service, version 2: every request carries a token, which expires."""

    name = "aws"
    pause_s = 2.0

    def __init__(self, service: MetadataService, clock: Callable[[], datetime]) -> None:
        self._service = service
        self._clock = clock
        self._began_at = clock()
        self._token: str | None = None

    async def is_here(self) -> bool:
        """Returns whether this is an instance of EC2. Raises NoAnswer."""
        self._token = await self._fetch_token()
        answer = await self._get("/latest/meta-data/instance-id")
        return answer.status == 200 and answer.text.startswith("i-")

    async def look(self) -> Notice | None:
        """Returns the notice of an interruption, or else a recommendation to leave. Raises NoAnswer.

        A recommendation that is older than this worker is none: it was started here nevertheless.
        """
        answer = await self._get(_ACTION)
        if answer.status != _NOTHING:
            action = answer.read(_Action)
            return Notice.preempting(self.name, action.action, (action.time - self._clock()).total_seconds())
        answer = await self._get(_REBALANCE)
        if answer.status != _NOTHING and answer.read(_Recommendation).notice_time >= self._began_at:
            return Notice(Reason.DRAINED, "aws rebalance recommendation", _DRAIN_S, self.name, "rebalance")
        return None

    async def _get(self, path: str) -> Answer:
        token = self._token or await self._fetch_token()
        answer = await self._ask_with(token, path)
        if answer.status == 401:  # The token has expired.
            token = await self._fetch_token()
            answer = await self._ask_with(token, path)
        self._token = token
        return answer

    async def _ask_with(self, token: str, path: str) -> Answer:
        return await self._service.ask("GET", path, headers={"X-aws-ec2-metadata-token": token}, within_s=_WITHIN_S)

    async def _fetch_token(self) -> str:
        headers = {"X-aws-ec2-metadata-token-ttl-seconds": str(_TOKEN_S)}
        answer = await self._service.ask("PUT", "/latest/api/token", headers=headers, within_s=_WITHIN_S)
        answer.check()
        if re.fullmatch("[!-~]{1,1000}", answer.text) is None:
            raise NoAnswer("its token is none")
        return answer.text
