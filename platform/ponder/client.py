"""The HTTP client of the API: one method a route, errors translated, retries that never pay twice."""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import TracebackType
from typing import Any, Self

import httpx

from ponder.errors import Conflict, Forbidden, InvalidInput, NotFound, PonderError, Unauthorized, Unreachable

Json = dict[str, Any]
Lines = Callable[[], Iterable[bytes]]
"""Opens the content of an upload anew, so that an upload can be tried again."""

_BUSY = (429, 502, 503, 504)
_CHUNK = 64 * 1024


class Client:
    """Not thread-safe in its retries' bookkeeping, so: one a thread.

    A request that got no answer is repeated for `patience_s` seconds if repeating it cannot do harm: everything
    that only reads, everything with an Idempotency-Key, and whatever the server never received.
    """

    def __init__(
        self,
        base_url: str,
        api_key: str,
        *,
        patience_s: float = 3.0,
        timeout_s: float = 60.0,
        transport: httpx.BaseTransport | None = None,
        sleep: Callable[[float], None] = time.sleep,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.base_url = base_url
        self.patience_s = patience_s
        self._sleep = sleep
        self._clock = clock
        self._http = httpx.Client(
            base_url=f"{base_url}/v1/",
            headers={"Authorization": f"Bearer {api_key}"},
            timeout=httpx.Timeout(timeout_s, connect=min(timeout_s, 10.0)),
            transport=transport,
        )

    def close(self) -> None:
        self._http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # Files

    def upload(self, lines: Lines, filename: str) -> Json:
        """Streams a batch file up. A repeated upload leaves a file that nobody uses, so it may be repeated."""

        def once() -> httpx.Response:
            content = ("file", (filename, _Reader(lines()), "application/jsonl"))
            return self._http.post("files", data={"purpose": "batch"}, files=[content])  # type: ignore[list-item]

        return self._answer(once, repeatable=True)

    def uploads(self) -> Iterator[Json]:
        """The batch files that were handed in, newest first."""
        return self._pages("files", None, {"purpose": "batch"})

    @contextmanager
    def download(self, file_id: str) -> Iterator[Iterator[bytes]]:
        """The content of a file, piece by piece; raises Unreachable when the connection breaks in between."""
        request = self._http.build_request("GET", f"files/{file_id}/content")
        response = self._send(lambda: self._http.send(request, stream=True), repeatable=True)
        try:
            with _translated(self.base_url):
                yield response.iter_bytes(_CHUNK)
        finally:
            response.close()

    # Batches

    def submit(
        self,
        input_file_id: str,
        *,
        completion_window: str = "24h",
        metadata: Mapping[str, str] | None = None,
        options: Mapping[str, Any] | None = None,
        idempotency_key: str | None = None,
    ) -> Json:
        """`options` is the batch's `ponder` object. The same `idempotency_key` gives the same batch again."""
        body = {
            "input_file_id": input_file_id,
            "endpoint": "/v1/chat/completions",
            "completion_window": completion_window,
            "metadata": dict(metadata or {}),
        }
        if options:
            body["ponder"] = dict(options)
        return self._post("batches", body, idempotency_key or secrets.token_hex(16))

    def batch(self, batch_id: str) -> Json:
        return self._get(f"batches/{batch_id}")

    def batches(self, limit: int | None = None) -> Iterator[Json]:
        """Newest first."""
        return self._pages("batches", limit)

    def cancel(self, batch_id: str) -> Json:
        return self._request("POST", f"batches/{batch_id}/cancel", repeatable=True)

    def retry(self, batch_id: str, *, idempotency_key: str | None = None) -> Json:
        """A new batch of the failed and expired jobs of this one."""
        return self._post(f"batches/{batch_id}/retry", {}, idempotency_key or secrets.token_hex(16))

    # Jobs, models, reports

    def jobs(self, batch_id: str, *, state: str | None = None, limit: int | None = None) -> Iterator[Json]:
        return self._pages(f"batches/{batch_id}/jobs", limit, {"state": state} if state else None)

    def job(self, job_id: str) -> Json:
        return self._get(f"jobs/{job_id}")

    def models(self) -> list[Json]:
        return list(self._get("models")["data"])

    def cost_report(self, by: Sequence[str], batch_ids: Sequence[str] = ()) -> Json:
        return self._get("reports/cost", {"by": ",".join(by), "batch_id": list(batch_ids)})

    # Administration

    def tenants(self) -> list[Json]:
        return list(self._pages("tenants", None))

    def create_tenant(self, name: str) -> Json:
        return self._request("POST", "tenants", json={"name": name})

    def keys(self) -> list[Json]:
        return list(self._pages("keys", None))

    def create_key(self, name: str, *, tenant: str | None = None, is_operator: bool = False) -> Json:
        """The answer's `key` is shown this once."""
        body: Json = {"name": name, "is_operator": is_operator}
        if tenant:
            body["tenant"] = tenant
        return self._request("POST", "keys", json=body)

    def revoke_key(self, key_id: str) -> Json:
        return self._request("DELETE", f"keys/{key_id}", repeatable=True)

    def prices(self) -> list[Json]:
        return list(self._get("prices")["data"])

    def set_price(self, machine: str, market: str, dollars_per_hour: str, source: str) -> Json:
        body = {"machine": machine, "market": market, "dollars_per_hour": dollars_per_hour, "source": source}
        return self._request("PUT", "prices", json=body, repeatable=True)

    # How it is done

    def _pages(self, path: str, limit: int | None, query: Mapping[str, Any] | None = None) -> Iterator[Json]:
        """Everything of a list, page by page, up to `limit`."""
        after: str | None = None
        num_left = limit
        while num_left is None or num_left > 0:
            page = dict(query or {}) | {"limit": min(100, num_left or 100)} | ({"after": after} if after else {})
            answer = self._get(path, page)
            yield from answer["data"]
            if not answer["data"] or not answer.get("has_more"):
                return
            after = answer["data"][-1]["id"]
            num_left = None if num_left is None else num_left - len(answer["data"])

    def _get(self, path: str, query: Mapping[str, Any] | None = None) -> Json:
        return self._request("GET", path, params=query, repeatable=True)

    def _post(self, path: str, body: Json, idempotency_key: str) -> Json:
        return self._request("POST", path, json=body, headers={"Idempotency-Key": idempotency_key}, repeatable=True)

    def _request(self, method: str, path: str, *, repeatable: bool = False, **arguments: Any) -> Json:
        return self._answer(lambda: self._http.request(method, path, **arguments), repeatable=repeatable)

    def _answer(self, once: Callable[[], httpx.Response], *, repeatable: bool) -> Json:
        response = self._send(once, repeatable=repeatable)
        try:
            answer = response.json()
        except json.JSONDecodeError as error:
            raise Unreachable(f"{self.base_url} answers, but not as ponder does: is this its address?") from error
        if not isinstance(answer, dict):
            raise Unreachable(f"{self.base_url} answers, but not as ponder does: is this its address?")
        return answer

    def _send(self, once: Callable[[], httpx.Response], *, repeatable: bool) -> httpx.Response:
        """The first successful response; raises what ponder calls the failure."""
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
                failure, is_harmless = error, repeatable or isinstance(error.__cause__, httpx.ConnectError)
            if not is_harmless or self._clock() + pause_s > give_up_at:
                raise failure
            self._sleep(pause_s)
            pause_s = min(pause_s * 2, 5.0)


class _Reader:
    """What httpx wants of a file, over pieces that are made while they are sent."""

    def __init__(self, pieces: Iterable[bytes]) -> None:
        self._pieces = iter(pieces)

    def read(self, num_bytes: int = _CHUNK) -> bytes:
        """At least `num_bytes` unless the end is near; nothing at the end."""
        gathered: list[bytes] = []
        length = 0
        for piece in self._pieces:
            gathered.append(piece)
            length += len(piece)
            if length >= num_bytes:
                break
        return b"".join(gathered)


@contextmanager
def _translated(base_url: str) -> Iterator[None]:
    try:
        yield
    except httpx.InvalidURL as error:
        raise InvalidInput(f"{base_url} is not a web address: {error}", param="PONDER_BASE_URL") from error
    except httpx.UnsupportedProtocol as error:
        raise InvalidInput(f"{base_url} does not begin with http:// or https://", param="PONDER_BASE_URL") from error
    except httpx.TransportError as error:
        reason = "took too long to answer" if isinstance(error, httpx.TimeoutException) else "does not answer"
        raise Unreachable(
            f"{base_url} {reason} ({error or type(error).__name__}). "
            "`ponder up` starts ponder on this machine; PONDER_BASE_URL says where it is otherwise."
        ) from error


def _error(response: httpx.Response, base_url: str) -> PonderError:
    response.read()
    error = _details(response)
    message = str(error.get("message") or f"{response.status_code} {response.reason_phrase}")
    match response.status_code:
        case 401:
            return Unauthorized(message)
        case 403:
            return Forbidden(message)
        case 404:
            return NotFound(message)
        case 409:
            return Conflict(message)
        case status if 400 <= status < 500 and status not in _BUSY:
            return InvalidInput(message, param=error.get("param"), code=error.get("code") or "invalid_request")
        case status:
            return Unreachable(f"{base_url} answered {status}: {message}")


def _details(response: httpx.Response) -> Json:
    """OpenAI's error object; nothing where somebody else answered."""
    try:
        answer = response.json()
    except ValueError:
        return {}
    error = answer.get("error") if isinstance(answer, dict) else None
    return error if isinstance(error, dict) else {}


def _seconds(retry_after: str | None) -> float:
    return float(retry_after) if retry_after and retry_after.isdecimal() else 0.0
