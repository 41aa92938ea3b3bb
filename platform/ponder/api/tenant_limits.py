"""Limits on a tenant in this process: requests per second, uploads, and submissions being read."""

from __future__ import annotations

import math
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from ponder.errors import LimitReached
from ponder.settings import Settings

_WINDOW_S = 10.0
"""This many seconds' requests may come at once."""
_MOST_KEYS = 10_000


@dataclass(frozen=True, slots=True)
class Rate:
    """The requests that a tenant has left, and the time until it has all of them again."""

    limit: int
    remaining: int
    reset_s: float

    def headers(self) -> dict[str, str]:
        """Returns OpenAI's rate-limit headers."""
        return {
            "x-ratelimit-limit-requests": str(self.limit),
            "x-ratelimit-remaining-requests": str(self.remaining),
            "x-ratelimit-reset-requests": f"{self.reset_s:.3f}s",
        }


@dataclass(slots=True)
class _Bucket:
    tokens: float
    at: float


class RequestRate:
    """A token bucket per tenant. Thread-safe."""

    def __init__(self, per_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._per_s = per_s
        self._most = max(1.0, per_s * _WINDOW_S)
        self._clock = clock
        self._lock = threading.Lock()
        self._buckets: dict[str, _Bucket] = {}
        self._tenants: dict[bytes, str] = {}

    def tenant_of(self, key_sha256: bytes) -> str | None:
        """Returns the tenant of a key that was valid last time, so that excess requests need no look-up."""
        return self._tenants.get(key_sha256)

    def remember(self, key_sha256: bytes, tenant_id: str) -> None:
        with self._lock:
            if len(self._tenants) >= _MOST_KEYS:
                self._tenants.clear()
            self._tenants[key_sha256] = tenant_id

    def forget(self, key_sha256: bytes) -> None:
        """Forgets a key that is no longer valid."""
        with self._lock:
            self._tenants.pop(key_sha256, None)

    def take(self, tenant_id: str) -> None:
        """Counts one request. Raises LimitReached."""
        with self._lock:
            now = self._clock()
            bucket = self._buckets.setdefault(tenant_id, _Bucket(self._most, now))
            bucket.tokens = min(self._most, bucket.tokens + (now - bucket.at) * self._per_s)
            bucket.at = now
            if bucket.tokens < 1:
                raise LimitReached(
                    f"more than {self._per_s:g} requests per second (PONDER_MAX_REQUESTS_PER_S)",
                    code="rate_limit_exceeded",
                    retry_after_s=(1 - bucket.tokens) / self._per_s,
                )
            bucket.tokens -= 1

    def left(self, tenant_id: str) -> Rate:
        """Returns what is left after the last request."""
        with self._lock:
            tokens = self._buckets[tenant_id].tokens
        return Rate(math.floor(self._most), math.floor(tokens), (self._most - tokens) / self._per_s)


class Concurrency:
    """A limit on how many of one kind a tenant has at a time. Thread-safe."""

    def __init__(self, most: int, what: str, setting: str) -> None:
        self._most = most
        self._refusal = f"more than {most} {what} at a time ({setting})"
        self._code = f"too_many_{what.partition(' ')[0]}"
        self._lock = threading.Lock()
        self._running: Counter[str] = Counter()

    @contextmanager
    def one(self, tenant_id: str, *, is_operator: bool) -> Iterator[None]:
        """Counts one for the length of a `with`. Raises LimitReached, but never for an operator."""
        with self._lock:
            if self._running[tenant_id] >= self._most and not is_operator:
                raise LimitReached(self._refusal, code=self._code)
            self._running[tenant_id] += 1
        try:
            yield
        finally:
            with self._lock:
                self._running[tenant_id] -= 1
                self._running += Counter()  # drops those at zero


class TenantLimits:
    """The limits within one process. Limits that must be exact over all processes are counted in Postgres."""

    def __init__(self, settings: Settings) -> None:
        self.requests = RequestRate(settings.max_requests_per_s)
        self.uploads = Concurrency(settings.max_uploads, "uploads", "PONDER_MAX_UPLOADS")
        self.submissions = Concurrency(settings.max_submissions, "submissions", "PONDER_MAX_SUBMISSIONS")
        self.streams = Concurrency(settings.max_streams, "streams of results", "PONDER_MAX_STREAMS")
        self.pages = Concurrency(settings.max_pages, "pages open in the console", "PONDER_MAX_PAGES")
