"""The HTTP client of the API: one method per route, translated errors, and retries that never pay twice."""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self
from urllib.parse import urlencode

from ponder.wire import Json, Wire

_BATCHES_AT_A_TIME = 100
"""Batches that one request may name."""
Lines = Callable[[], Iterable[bytes]]
"""A function that opens the content of an upload again, so that the upload can be retried."""


@dataclass(frozen=True, slots=True)
class ResultLine:
    """A line of a batch's results. `text` is all of it, and results go on after its `cursor`."""

    text: bytes
    cursor: str
    is_error: bool

    @classmethod
    def of(cls, text: bytes) -> Self:
        line = json.loads(text)
        return cls(text, line["cursor"], line["error"] is not None)


@dataclass(frozen=True, slots=True)
class ResultPage:
    """Some lines of a batch's results. `is_last`: the batch has ended, and no more lines will follow."""

    lines: Sequence[ResultLine]
    is_last: bool


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

    def delete_file(self, file_id: str) -> None:
        self._wire.ask("DELETE", f"files/{file_id}", repeatable=True)

    # Batches

    def submit(
        self,
        input_file_id: str,
        *,
        endpoint: str = "/v1/chat/completions",
        completion_window: str = "24h",
        metadata: Mapping[str, str] | None = None,
        options: Mapping[str, Any] | None = None,
        expires_after_s: int | None = None,
        idempotency_key: str | None = None,
    ) -> Json:
        """Submits a batch. `options` is its `ponder` object. A repeated `idempotency_key` returns the same batch.

        Its results are deleted `expires_after_s` seconds after its end, by default as its tenant's retention says.
        """
        body = {
            "input_file_id": input_file_id,
            "endpoint": endpoint,
            "completion_window": completion_window,
            "metadata": dict(metadata or {}),
        }
        if expires_after_s is not None:
            body["output_expires_after"] = _expiry(expires_after_s)
        if options:
            body["ponder"] = dict(options)
        return self._post("batches", body, idempotency_key or secrets.token_hex(16))

    def estimate(
        self,
        input_file_id: str,
        *,
        endpoint: str = "/v1/chat/completions",
        options: Mapping[str, Any] | None = None,
        workers: int | None = None,
    ) -> Json:
        """Estimates what a batch would take, also with so many `workers`. Submits nothing."""
        body: Json = {"input_file_id": input_file_id, "endpoint": endpoint, "completion_window": "24h"}
        if options:
            body["ponder"] = dict(options)
        query = {} if workers is None else {"workers": workers}
        return self._wire.ask("POST", "estimates", json=body, params=query, repeatable=True)

    def batch(self, batch_id: str) -> Json:
        return self._get(f"batches/{batch_id}")

    def batches(self, limit: int | None = None) -> Iterator[Json]:
        """Yields the batches, newest first."""
        return self._pages("batches", limit)

    def cancel(self, batch_id: str) -> Json:
        return self._wire.ask("POST", f"batches/{batch_id}/cancel", repeatable=True)

    def change(self, batch_id: str, **changes: Any) -> Json:
        """Changes a batch that has not ended: `completion_window`, or in `ponder` its budget, pause or priority.

        `ponder={"pilot": {"confirmed": True}}` says yes to the estimate of its pilot.
        """
        return self._wire.ask("PATCH", f"batches/{batch_id}", json=changes, repeatable=True)

    def retry(self, batch_id: str, *, idempotency_key: str | None = None) -> Json:
        """Makes a new batch of this one's failed and expired jobs."""
        return self._post(f"batches/{batch_id}/retry", {}, idempotency_key or secrets.token_hex(16))

    # Results

    def results(self, batch_id: str, *, after: str | None = None, limit: int = 1_000) -> ResultPage:
        """Returns the refused lines and settled jobs after a cursor, as far as they are there."""
        query = {"limit": str(limit)} | ({"after": after} if after else {})
        with self._wire.stream(f"batches/{batch_id}/results", query) as answer:
            lines = [ResultLine.of(text) for text in answer.lines]
            return ResultPage(lines, answer.headers.get("Ponder-Complete") == "true")

    def follow_results(
        self, batch_id: str, *, after: str | None = None, has_stopped: Callable[[], bool] = lambda: False
    ) -> Iterator[ResultLine]:
        """Yields every line after a cursor once, as jobs settle, until the batch has ended and all lines are there.

        Reconnects, after the last line that came, for as long as the API comes back in time. While no line comes,
        `has_stopped` is asked about every ten seconds. Once it is true, the lines that are there are the last ones.
        """

        def query() -> Mapping[str, str]:
            return {"follow": "true"} | ({"after": after} if after else {})

        is_stopped = False
        while True:
            for text in self._wire.follow(f"batches/{batch_id}/results", query):
                if not text.strip():
                    if is_stopped := has_stopped():
                        break
                    continue
                line = ResultLine.of(text)
                after = line.cursor
                yield line
            # A proxy may have ended the stream as if it were whole.
            page = self.results(batch_id, after=after)
            for line in page.lines:
                after = line.cursor
                yield line
            if page.is_last or is_stopped:
                return

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
        return self.report("cost", by=",".join(by), batch_id=list(batch_ids), tenant=tenant)

    def report(self, name: str, **query: Any) -> Json:
        """Returns a report: cost, cost/comparison, waste, latency, quality or what-if. A None is left out."""
        return self._get(f"reports/{name}", {key: value for key, value in query.items() if value is not None})

    # Measuring

    def measurements(self, batch_ids: Sequence[str]) -> Iterator[Json]:
        """Yields what each job of some batches took: its times, tokens, cost, verdict and candidates."""
        for first in range(0, len(batch_ids), _BATCHES_AT_A_TIME):
            query = {"batch_id": list(batch_ids[first : first + _BATCHES_AT_A_TIME])}
            yield from self._pages("measurements", None, query, at_a_time=200)

    def worker_samples(self, since: float, until: float) -> list[Json]:
        """Returns the load of workers between two moments in Unix seconds, as far as the key may see it."""
        samples: list[Json] = []
        has_more = True
        while has_more and since < until:
            answer = self._get("worker-samples", {"since": since, "until": until})
            samples += answer["data"]
            has_more = answer["has_more"]
            since = samples[-1]["at"] if samples else until
        return samples

    def keep_bench_run(self, name: str, document: Json) -> Json:
        return self._wire.ask("POST", "bench/runs", json={"name": name, "document": document})

    def bench_runs(self, limit: int | None = None) -> Iterator[Json]:
        """Yields the runs of `ponder bench`, newest first, without their documents."""
        return self._pages("bench/runs", limit)

    def bench_run(self, run_id: str) -> Json:
        return self._get(f"bench/runs/{run_id}")

    def delete_bench_run(self, run_id: str) -> None:
        self._wire.ask("DELETE", f"bench/runs/{run_id}")

    # Administration

    def tenants(self) -> list[Json]:
        return list(self._pages("tenants", None))

    def create_tenant(self, name: str, *, quota_tokens: int | None = None) -> Json:
        return self._wire.ask("POST", "tenants", json={"name": name, "quota_tokens": quota_tokens})

    def set_quota(self, tenant_id: str, quota_tokens: int | None) -> Json:
        return self._wire.ask("PUT", f"tenants/{tenant_id}", json={"quota_tokens": quota_tokens})

    def set_retention(self, tenant_id: str, seconds: int | None) -> Json:
        """Sets how long the results of a tenant's new batches are kept by default. None means for ever."""
        body = {"output_expires_after": None if seconds is None else _expiry(seconds)}
        return self._wire.ask("PUT", f"tenants/{tenant_id}/retention", json=body)

    def prune(self, *, dry_run: bool, older_than_s: int | None = None, tenant: str | None = None) -> Json:
        """Deletes what expired batches left, or counts it. For operators, `tenant` may be another's id or `all`."""
        body = {"dry_run": dry_run, "older_than_s": older_than_s, "tenant": tenant}
        return self._wire.ask("POST", "prunes", json=body)

    def tenant_budget(self, tenant_id: str, **limits: float | None) -> Json:
        """Changes the limits that are given (`dollars_per_day`, …; None lifts one) and returns the budget."""
        return self._budget(f"tenants/{tenant_id}/budget", limits)

    def key_budget(self, key_id: str, **limits: float | None) -> Json:
        """Does for the batches of a key what `tenant_budget` does."""
        return self._budget(f"keys/{key_id}/budget", limits)

    def _budget(self, path: str, limits: Mapping[str, float | None]) -> Json:
        return self._wire.ask("PATCH", path, json=dict(limits), repeatable=True) if limits else self._get(path)

    def webhook(self) -> Json:
        return self._get("webhook")

    def set_webhook(self, url: str | None) -> Json:
        """Sets where the tenant's events go. The answer's `secret`, if it is there, is shown only this once."""
        return self._wire.ask("PUT", "webhook", json={"url": url})

    def new_webhook_secret(self) -> Json:
        return self._wire.ask("POST", "webhook/secret")

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

    def console_link(self, path: str = "/") -> str:
        """Returns the address of a page of the console, which signs in once, within ten minutes, as this key."""
        made = self._wire.ask("POST", "console/links")
        onwards = "" if path == "/" else f"?{urlencode({'next': path})}"
        return self.console_url(made["path"]) + onwards

    def console_url(self, path: str) -> str:
        """Returns the address of a page of the console."""
        return self._wire.base_url.rstrip("/") + path

    def fleet_log(self, *, limit: int, since: float | None = None) -> list[Json]:
        """Returns the autoscaler's newest decisions, the newest first."""
        query = {"limit": limit} | ({} if since is None else {"since": since})
        return list(self._get("fleet/log", query)["data"])

    def fleet_plans(self, **query: Any) -> Json:
        """Returns the workers wanted of each model (`data`), and what the plans keep to. Needs an operator's key."""
        return self._get("fleet/plan", query)

    def prices(self) -> list[Json]:
        return list(self._get("prices")["data"])

    def set_price(self, machine: str, market: str, dollars_per_hour: str, source: str, **terms: Any) -> Json:
        """Adds a price. `terms` are `valid_from`, `billed_by`, `minimum_s`, `region` and `currency`."""
        body = {"machine": machine, "market": market, "dollars_per_hour": dollars_per_hour, "source": source, **terms}
        return self._wire.ask("PUT", "prices", json=body, repeatable=True)

    # Requests

    def _pages(
        self, path: str, limit: int | None, query: Mapping[str, Any] | None = None, *, at_a_time: int = 100
    ) -> Iterator[Json]:
        """Yields the objects of a list, page by page, up to `limit`."""
        after: str | None = None
        num_left = limit
        while num_left is None or num_left > 0:
            page = (
                dict(query or {})
                | {"limit": min(at_a_time, num_left or at_a_time)}
                | ({"after": after} if after else {})
            )
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


def _expiry(seconds: int) -> Json:
    return {"anchor": "created_at", "seconds": seconds}
