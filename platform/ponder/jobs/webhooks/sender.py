"""Sends a message to the address that was checked."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Mapping
from concurrent.futures import Executor
from dataclasses import dataclass

import httpx2
import structlog

from ponder.domain.batch.webhook_url import is_public, refusal

_PORTS = {"https": 443, "http": 80}
_NO_REUSE = httpx2.Limits(max_keepalive_connections=0)
_GONE = 410
_UNREACHABLE = "the URL's host has no address that webhooks may go to"
"""All that a tenant is told, because names and addresses of the operator's network are none of its business."""

_log = structlog.get_logger(__name__)


class Undelivered(Exception):
    """An attempt that failed. If it is `final`, the receiver wants no further one."""

    def __init__(self, reason: str, *, final: bool = False) -> None:
        super().__init__(reason)
        self.is_final = final


@dataclass(frozen=True, slots=True)
class Sender:
    """Posts within `timeout_s` each. The threads of `resolver` ask name servers."""

    tls: ssl.SSLContext
    resolver: Executor
    allows_private: bool
    timeout_s: float

    async def post(self, url: str, body: bytes, headers: Mapping[str, str]) -> None:
        """Posts JSON. Raises Undelivered unless the answer's status is 2xx.

        The connection goes to the first address that answers of those that were checked, whatever the name means a
        moment later, and the certificate must be that of the name. Neither proxies nor redirects are followed, and the
        answer's body is not read.
        """
        refused = refusal(url, allows_private=self.allows_private)
        if refused is not None:
            raise Undelivered(refused)
        try:
            async with asyncio.timeout(self.timeout_s):
                status = await self._post(httpx2.URL(url), body, headers)
        except TimeoutError:
            raise Undelivered(f"no answer within {self.timeout_s:g} s") from None
        except (httpx2.HTTPError, httpx2.InvalidURL, OSError, UnicodeError) as error:
            raise Undelivered(f"{type(error).__name__}: {error}") from error
        if not 200 <= status < 300:
            followed = ", which is not followed" if 300 <= status < 400 else ""
            raise Undelivered(f"the receiver answered {status}{followed}", final=status == _GONE)

    async def _post(self, url: httpx2.URL, body: bytes, headers: Mapping[str, str]) -> int:
        *others, last = await self._resolve(url)
        for address in others:
            try:
                # One that swallows packets leaves time for the others.
                return await self._post_to(address, url, body, headers, connect_s=self.timeout_s / (len(others) + 1))
            except (httpx2.ConnectError, httpx2.ConnectTimeout):
                continue
        return await self._post_to(last, url, body, headers, connect_s=None)

    async def _post_to(
        self, address: str, url: httpx2.URL, body: bytes, headers: Mapping[str, str], *, connect_s: float | None
    ) -> int:
        async with httpx2.AsyncClient(
            verify=self.tls,
            trust_env=False,
            follow_redirects=False,
            timeout=httpx2.Timeout(None, connect=connect_s),
            limits=_NO_REUSE,
        ) as client:
            request = client.build_request(
                "POST",
                url.copy_with(host=address),
                content=body,
                headers={**headers, "Host": url.netloc.decode(), "Content-Type": "application/json"},
                extensions={"sni_hostname": url.host},
            )
            answer = await client.send(request, stream=True)
            await answer.aclose()
            return answer.status_code

    async def _resolve(self, url: httpx2.URL) -> list[str]:
        """Returns the addresses of the URL's host. Raises Undelivered if there is none, or any is not public."""
        port = url.port or _PORTS[url.scheme]
        try:
            found = await asyncio.get_running_loop().run_in_executor(self.resolver, _addresses, url.host, port)
        except (OSError, UnicodeError) as error:
            _log.warning("webhook_host_unknown", host=url.host, error=str(error))
            raise Undelivered(_UNREACHABLE) from None
        refused = [] if self.allows_private else [address for address in found if not is_public(address)]
        if refused:
            _log.warning("webhook_address_refused", host=url.host, addresses=refused)
            raise Undelivered(_UNREACHABLE)
        return found


def _addresses(host: str, port: int) -> list[str]:
    return [str(entry[4][0]) for entry in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)]
