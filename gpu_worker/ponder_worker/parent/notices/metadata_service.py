"""The HTTP service of a cloud that tells a machine about itself."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeVar

import httpx2
from pydantic import BaseModel, ValidationError

_MOST_BYTES = 256 * 1024
"""Many times the longest documented answer."""
_NO_REUSE = httpx2.Limits(max_keepalive_connections=0)

_Document = TypeVar("_Document", bound=BaseModel)


class NoAnswer(Exception):
    """The service did not answer, or not as its cloud documents it. Nothing follows from that."""


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer to a request; `headers` have lower-case names."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def text(self) -> str:
        return self.body.decode("utf-8", errors="replace").strip()

    def check(self) -> None:
        """Raises NoAnswer unless it is a success."""
        if self.status != 200:
            raise NoAnswer(f"it answered with status {self.status}")

    def read(self, kind: type[_Document]) -> _Document:
        """Returns the document that a success holds. Raises NoAnswer if this is none."""
        self.check()
        try:
            return kind.model_validate_json(self.body)
        except ValidationError as error:
            raise NoAnswer(f"it answered {self.text[:100]!r}") from error


@dataclass(frozen=True, slots=True)
class MetadataService:
    """A link-local address: no proxy lies between, and a redirect would lead elsewhere, so neither is followed."""

    base_url: str

    async def ask(
        self,
        method: str,
        path: str,
        *,
        headers: Mapping[str, str],
        within_s: float,
        params: Mapping[str, str] | None = None,
        body: bytes | None = None,
    ) -> Answer:
        """Returns the whole answer. Raises NoAnswer if it is not there within `within_s` seconds, or too long."""
        try:
            async with asyncio.timeout(within_s):
                return await self._ask(method, path, headers, params, body)
        except TimeoutError:
            raise NoAnswer(f"it did not answer within {within_s:g} s") from None
        except (httpx2.HTTPError, httpx2.InvalidURL, OSError, ValueError) as error:
            raise NoAnswer(f"{type(error).__name__}: {error}") from error

    async def _ask(
        self, method: str, path: str, headers: Mapping[str, str], params: Mapping[str, str] | None, body: bytes | None
    ) -> Answer:
        # No TLS is spoken, and the default would load all certificates each time.
        tls = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        async with (
            httpx2.AsyncClient(
                base_url=self.base_url,
                verify=tls,
                trust_env=False,
                follow_redirects=False,
                timeout=None,
                limits=_NO_REUSE,
            ) as client,
            client.stream(
                method, path, headers={**headers, "Accept-Encoding": "identity"}, params=params, content=body
            ) as answer,
        ):
            content = bytearray()
            async for chunk in answer.aiter_raw():
                content += chunk
                if len(content) > _MOST_BYTES:
                    raise NoAnswer(f"its answer is longer than {_MOST_BYTES} bytes")
            return Answer(answer.status_code, answer.headers, bytes(content))
