"""The HTTP client of the API: one method per route, translated errors, and retries that never pay twice."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from types import TracebackType
from typing import Any, Self

from ponder.wire import Json, Wire

Lines = Callable[[], Iterable[bytes]]
"""A function that opens the content of an upload again, so that the upload can be retried."""


class Client:
    """A client of the API over `wire`. Not thread-safe: use one per thread."""

    def __init__(self, wire: Wire) -> None:
        self._wire = wire

    @classmethod
    def of(cls, base_url: str, api_key: str, *, patience_s: float = 3.0, timeout_s: float = 60.0) -> Self:
        return cls(Wire(base_url, api_key, patience_s=patience_s, timeout_s=timeout_s))

    def close(self) -> None:
        self._wire.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # Files

    def upload(self, lines: Lines, filename: str) -> Json:
        """Uploads a batch file as a stream. Retrying is safe: a repeated upload only leaves an unused file."""
        return self._wire.upload("files", lines, filename, purpose="batch")

    def uploads(self) -> Iterator[Json]:
        """Yields the uploaded batch files, newest first."""
        return self._pages("files", None, {"purpose": "batch"})

    def download(self, file_id: str) -> AbstractContextManager[Iterator[bytes]]:
        """Yields the content of a file in pieces. Raises Unreachable if the connection breaks in between."""
        return self._wire.download(f"files/{file_id}/content")

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
        """Submits a batch. `options` is its `ponder` object. A repeated `idempotency_key` returns the same batch."""
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
        """Yields the batches, newest first."""
        return self._pages("batches", limit)

    def cancel(self, batch_id: str) -> Json:
        return self._wire.ask("POST", f"batches/{batch_id}/cancel", repeatable=True)

    def retry(self, batch_id: str, *, idempotency_key: str | None = None) -> Json:
        """Makes a new batch of this one's failed and expired jobs."""
        return self._post(f"batches/{batch_id}/retry", {}, idempotency_key or secrets.token_hex(16))

    # Jobs, models, reports

    def jobs(
        self, batch_id: str, *, state: str | None = None, custom_id: str | None = None, limit: int | None = None
    ) -> Iterator[Json]:
        """Yields the jobs of a batch by line, optionally only those in a state or with a custom id."""
        query = {"state": state, "custom_id": custom_id}
        return self._pages(
            f"batches/{batch_id}/jobs", limit, {name: value for name, value in query.items() if value is not None}
        )

    def job(self, job_id: str) -> Json:
        return self._get(f"jobs/{job_id}")

    def models(self) -> list[Json]:
        return list(self._get("models")["data"])

    def cost_report(self, by: Sequence[str], batch_ids: Sequence[str] = (), tenant: str | None = None) -> Json:
        """Returns the cost report. For operators, `tenant` may be another tenant's id or `all`."""
        query: Json = {"by": ",".join(by), "batch_id": list(batch_ids)}
        return self._get("reports/cost", query | ({} if tenant is None else {"tenant": tenant}))

    # Administration

    def tenants(self) -> list[Json]:
        return list(self._pages("tenants", None))

    def create_tenant(self, name: str, *, quota_tokens: int | None = None) -> Json:
        return self._wire.ask("POST", "tenants", json={"name": name, "quota_tokens": quota_tokens})

    def set_quota(self, tenant_id: str, quota_tokens: int | None) -> Json:
        return self._wire.ask("PUT", f"tenants/{tenant_id}", json={"quota_tokens": quota_tokens})

    def keys(self) -> list[Json]:
        return list(self._pages("keys", None))

    def create_key(self, name: str, *, tenant: str | None = None, role: str = "submit") -> Json:
        """Creates a key. The answer's `key` is shown only this once."""
        body: Json = {"name": name, "role": role}
        if tenant:
            body["tenant"] = tenant
        return self._wire.ask("POST", "keys", json=body)

    def revoke_key(self, key_id: str) -> Json:
        return self._wire.ask("DELETE", f"keys/{key_id}", repeatable=True)

    def prices(self) -> list[Json]:
        return list(self._get("prices")["data"])

    def set_price(self, machine: str, market: str, dollars_per_hour: str, source: str) -> Json:
        body = {"machine": machine, "market": market, "dollars_per_hour": dollars_per_hour, "source": source}
        return self._wire.ask("PUT", "prices", json=body, repeatable=True)

    # Requests

    def _pages(self, path: str, limit: int | None, query: Mapping[str, Any] | None = None) -> Iterator[Json]:
        """Yields the objects of a list, page by page, up to `limit`."""
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
        return self._wire.ask("GET", path, params=query, repeatable=True)

    def _post(self, path: str, body: Json, idempotency_key: str) -> Json:
        return self._wire.ask("POST", path, json=body, headers={"Idempotency-Key": idempotency_key}, repeatable=True)
