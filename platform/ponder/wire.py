"""HTTP exchanges with the API, repeated where that is harmless, with failures as ponder's errors."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import httpx2

from ponder.errors import Conflict, Forbidden, Gone, InvalidInput, NotFound, PonderError, Unauthorized, Unreachable

Json = dict[str, Any]

CHUNK_BYTES = 64 * 1024
_THIS_MACHINE = ("127.0.0.1", "localhost", "::1")
_BUSY = (429, 502, 503, 504)
_ERRORS: Mapping[int, type[PonderError]] = {
    401: Unauthorized, 403: Forbidden, 404: NotFound, 409: Conflict, 410: Gone
}  # fmt: skip
_BREAK_S = 0.5
"""The pause before a broken stream is asked for again."""
_SHORT_S = 2.0
_MAX_SHORT = 20
"""Streams in a row that break within `_SHORT_S` without a line, until somebody is told."""


@dataclass(frozen=True, slots=True)
class LineStream:
    """An answer of lines. `lines` are whole, with their ends. A blank one comes while there is no other."""

    headers: Mapping[str, str]
    lines: Iterator[bytes]


class Wire:
    """A connection to the API, for one thread. Unanswered requests are repeated for `patience_s` seconds if harmless.

    A repeat is harmless if the request is `repeatable` (it only reads, or has an Idempotency-Key) or never reached the
    server.
    """

    def __init__(
        self,
        base_url: str,
        api_key: str,
        *,
        patience_s: float,
        timeout_s: float,
        transport: httpx2.BaseTransport | None = None,
        sleep: Callable[[float], None] = time.sleep,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.base_url = base_url
        self.patience_s = patience_s
        self._sleep = sleep
        self._clock = clock
        with _translated(base_url):
            self._http = httpx2.Client(
                base_url=f"{base_url}/v1/",
                headers={"Authorization": f"Bearer {api_key}"},
                timeout=httpx2.Timeout(timeout_s, connect=min(timeout_s, 10.0)),
                transport=transport,
                # A proxy named by the environment cannot reach this machine's own address.
                trust_env=httpx2.URL(base_url).host not in _THIS_MACHINE,
            )

    def close(self) -> None:
        self._http.close()

    def ask(self, method: str, path: str, *, repeatable: bool = False, **arguments: Any) -> Json:
        """Returns the JSON object in the answer. `arguments` are httpx2's."""
        return self._object(self._send(lambda: self._http.request(method, path, **arguments), repeatable=repeatable))

    def upload(self, path: str, pieces: Callable[[], Iterable[bytes]], filename: str, **fields: str) -> Json:
        """Sends a form with a file that is made while it is sent. `pieces` opens it again for every try."""

        def once() -> httpx2.Response:
            file = ("file", (filename, _Reader(pieces()), "application/jsonl"))
            return self._http.post(path, data=fields, files=[file])  # type: ignore[list-item]

        return self._object(self._send(once, repeatable=True))

    @contextmanager
    def download(self, path: str) -> Iterator[Iterator[bytes]]:
        """Yields the content in pieces. Raises Unreachable if the connection breaks in between."""
        request = self._http.build_request("GET", path)
        response = self._send(lambda: self._http.send(request, stream=True), repeatable=True)
        try:
            with _translated(self.base_url):
                yield response.iter_bytes(CHUNK_BYTES)
        finally:
            response.close()

    @contextmanager
    def stream(self, path: str, query: Mapping[str, Any]) -> Iterator[LineStream]:
        """Yields an answer of lines as they come. Raises Unreachable if the connection breaks in between."""
        request = self._http.build_request("GET", path, params=query)
        response = self._send(lambda: self._http.send(request, stream=True), repeatable=True)
        try:
            with _translated(self.base_url):
                yield LineStream(response.headers, _whole_lines(response.iter_bytes()))
        finally:
            response.close()

    def follow(self, path: str, query: Callable[[], Mapping[str, Any]]) -> Iterator[bytes]:
        """Yields the lines of an answer to its end. Asks again, with a new query, whenever the connection breaks."""
        num_short = 0
        while True:
            begun_at = self._clock()
            try:
                with self.stream(path, query()) as answer:
                    for line in answer.lines:
                        num_short = 0
                        yield line
                return
            except Unreachable:
                num_short = num_short + 1 if self._clock() - begun_at < _SHORT_S else 0
                if num_short > _MAX_SHORT:
                    raise
            self._sleep(_BREAK_S)

    def _object(self, response: httpx2.Response) -> Json:
        try:
            answer = response.json()
        except json.JSONDecodeError:
            answer = None
        if not isinstance(answer, dict):
            raise Unreachable(f"{self.base_url} answers, but not like a ponder API: is this the right address?")
        return answer

    def _send(self, once: Callable[[], httpx2.Response], *, repeatable: bool) -> httpx2.Response:
        """Returns the first successful response, or raises the failure as one of ponder's errors."""
        give_up_at = self._clock() + self.patience_s
        pause_s = 0.1
        while True:
            try:
                with _translated(self.base_url):
                    response = once()
                if response.is_success:
                    return response
                failure, is_harmless = _error(response, self.base_url), response.status_code in _BUSY
                pause_s = max(pause_s, _seconds(response.headers.get("Retry-After")))
            except Unreachable as error:
                failure, is_harmless = error, repeatable or isinstance(error.__cause__, httpx2.ConnectError)
            if not is_harmless or self._clock() + pause_s > give_up_at:
                raise failure
            self._sleep(pause_s)
            pause_s = min(pause_s * 2, 5.0)


class _Reader:
    """A file as httpx2 wants it, over pieces that are made while they are sent."""

    def __init__(self, pieces: Iterable[bytes]) -> None:
        self._pieces = iter(pieces)

    def read(self, num_bytes: int = CHUNK_BYTES) -> bytes:
        """Returns at least `num_bytes` unless the end is near, and nothing at the end."""
        gathered: list[bytes] = []
        length = 0
        for piece in self._pieces:
            gathered.append(piece)
            length += len(piece)
            if length >= num_bytes:
                break
        return b"".join(gathered)


def _whole_lines(pieces: Iterable[bytes]) -> Iterator[bytes]:
    """Yields lines without one that was cut off."""
    rest = b""
    for piece in pieces:
        *lines, rest = (rest + piece).split(b"\n")
        yield from (line + b"\n" for line in lines)


@contextmanager
def _translated(base_url: str) -> Iterator[None]:
    try:
        yield
    except httpx2.InvalidURL as error:
        raise InvalidInput(f"{base_url} is not a web address: {error}", param="PONDER_BASE_URL") from error
    except httpx2.UnsupportedProtocol as error:
        raise InvalidInput(f"{base_url} does not begin with http:// or https://", param="PONDER_BASE_URL") from error
    except httpx2.TransportError as error:
        reason = "took too long to answer" if isinstance(error, httpx2.TimeoutException) else "does not answer"
        raise Unreachable(
            f"{base_url} {reason} ({error or type(error).__name__}). "
            "`ponder up` starts ponder on this machine; PONDER_BASE_URL says where it is otherwise."
        ) from error


def _error(response: httpx2.Response, base_url: str) -> PonderError:
    response.read()
    error = _details(response)
    message = str(error.get("message") or f"{response.status_code} {response.reason_phrase}")
    status = response.status_code
    if status in _ERRORS:
        return _ERRORS[status](message)
    if 400 <= status < 500 and status not in _BUSY:
        return InvalidInput(message, param=error.get("param"), code=error.get("code") or "invalid_request")
    return Unreachable(f"{base_url} answered {status}: {message}")


def _details(response: httpx2.Response) -> Json:
    """Returns OpenAI's error object, or an empty one if another server answered."""
    try:
        answer = response.json()
    except ValueError:
        return {}
    error = answer.get("error") if isinstance(answer, dict) else None
    return error if isinstance(error, dict) else {}


def _seconds(retry_after: str | None) -> float:
    return float(retry_after) if retry_after and retry_after.isdecimal() else 0.0
