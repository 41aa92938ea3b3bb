"""Notes as spans what a traced job does in this process. The parent process exports them, so nothing here waits."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import count
from typing import Literal

from ponder.domain.state import Verdict
from ponder.trace import span_of
from ponder_worker.protocol import EndedSpan

Facts = Mapping[str, str | int]
Name = Literal["prefill", "round", "scoring", "verification"]

_VERDICTS = {True: Verdict.PASSED, False: Verdict.FAILED, None: Verdict.UNVERIFIED}


@dataclass(frozen=True, slots=True)
class _Open:
    """A span that has begun."""

    name: Name
    span_id: int
    parent_id: int
    began_s: float
    facts: Facts


class SpanRecorder:
    """One job's spans. A round is the parent of what begins in it; outside rounds it is the job's attempt."""

    def __init__(self, job_id: int, attempt_span: int, on_end: Callable[[EndedSpan], None]) -> None:
        self._job_id = job_id
        self._attempt_span = attempt_span
        self._on_end = on_end
        self._numbers = count()
        self._round: _Open | None = None
        self._prefill: _Open | None = None
        self._has_token: Callable[[], bool] | None = None
        """Whether the first stream has brought a token; None before it begins."""
        self._scoring: _Open | None = None
        self._num_scores = self._num_waiting = 0

    def begin_round(self, number: int) -> None:
        self.end_round()
        self._round = self._open("round", {"ponder.round": number})

    def end_round(self) -> None:
        self._end(self._round)
        self._round = None

    def begin_prefill(self, num_tokens: int, has_token: Callable[[], bool]) -> None:
        """Begins with the job's first stream here; what later ones begin with is mostly found in pages."""
        if self._has_token is None:
            self._has_token = has_token
            self._prefill = self._open("prefill", {"ponder.tokens.prompt": num_tokens})

    def look(self, cached_tokens: int | None) -> None:
        """Ends the prefill with the first token. Must be called after every step."""
        if self._prefill is not None and self._has_token is not None and self._has_token():
            self._end(self._prefill, {"ponder.tokens.cached": cached_tokens or 0})
            self._prefill = None

    def begin_score(self) -> None:
        """Scores that overlap are one span: siblings are scored together."""
        if self._scoring is None:
            self._scoring = self._open("scoring")
        self._num_waiting += 1
        self._num_scores += 1

    def end_score(self) -> None:
        self._num_waiting -= 1
        if not self._num_waiting:
            self._end_scoring()

    def begin_verification(self) -> Callable[[bool | None], None]:
        """Returns a function that ends it, by what the verifier says; None if it could not judge."""
        opened = self._open("verification")
        return lambda passed: self._end(opened, {"ponder.verdict": _VERDICTS[passed].value})

    def close(self) -> None:
        """Ends what is open, because the job ends here."""
        self._end(self._prefill)
        self._prefill = None
        self._end_scoring()
        self.end_round()

    def _end_scoring(self) -> None:
        self._end(self._scoring, {"ponder.scores": self._num_scores})
        self._scoring = None
        self._num_scores = self._num_waiting = 0

    def _open(self, name: Name, facts: Facts | None = None) -> _Open:
        parent_id = self._attempt_span if self._round is None else self._round.span_id
        return _Open(name, span_of(self._attempt_span, next(self._numbers)), parent_id, time.monotonic(), facts or {})

    def _end(self, opened: _Open | None, facts: Facts | None = None) -> None:
        if opened is not None:
            about = (self._job_id, opened.name, opened.span_id, opened.parent_id, opened.began_s)
            self._on_end(EndedSpan(*about, time.monotonic(), {**opened.facts, **(facts or {})}))
