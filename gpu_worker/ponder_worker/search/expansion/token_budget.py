"""The hard wall around a job's generated tokens: who may not be able to stay inside does not start."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, eq=False)
class Request:
    cap: int
    whole: bool
    answer: Callable[[int], None]


class TokenBudget:
    """Grants reservations in the order in which they were asked for; used + reserved never exceeds `tokens`.

    A sample reserves its cap, its answer's tail in it, before its first token and returns what it did not use. Who is
    granted does not depend on time: the first in line waits while somebody ahead of it may still return tokens, and is
    refused only when nobody can.
    """

    def __init__(self, tokens: int | None) -> None:
        self.tokens = tokens
        self.used = 0
        self.reserved = 0
        self.refused = False
        """Whether anybody was ever refused: then the budget ended the search."""
        self._longest = 1
        self._line: deque[Request] = deque()
        self._closed = False

    def ask(self, cap: int, *, whole: bool, answer: Callable[[int], None]) -> Request:
        """`answer` gets the tokens granted, now or later; 0 is a refusal.

        whole: all of `cap` or nothing. Otherwise, when nobody runs any more, what is left is granted, if the longest
        sample so far would fit: a sample's length was not limited by a person, only by the model's context.
        """
        assert cap > 0
        request = Request(cap, whole, answer)
        self._line.append(request)
        self._serve()
        return request

    def withdraw(self, request: Request) -> None:
        """It leaves the line, if it still stands there, and is not answered."""
        if request in self._line:
            self._line.remove(request)
            self._serve()

    def restore(self, cap: int) -> None:
        """A half-grown sample of a former attempt holds its reservation again."""
        self.reserved += cap

    def settle(self, cap: int, used: int) -> None:
        """A sample that was granted `cap` has ended with `used` tokens."""
        assert used <= cap
        self.reserved -= cap
        self.count(used)
        self._serve()

    def count(self, used: int) -> None:
        """Tokens of a sample that ended in a former attempt, or just now."""
        self.used += used
        self._longest = max(self._longest, used)
        self.check()

    def close(self) -> None:
        """Nobody starts any more."""
        self._closed = True
        self._serve()

    def check(self) -> None:
        """AssertionError if the wall was passed, or could be."""
        assert self.reserved >= 0
        assert self.tokens is None or self.used + self.reserved <= self.tokens

    def _serve(self) -> None:
        while self._line:
            granted = self._grant(self._line[0])
            if granted is None:
                return
            request = self._line.popleft()
            if granted:
                self.reserved += granted
                self.check()
            else:
                self.refused = self.refused or not self._closed
            request.answer(granted)

    def _grant(self, request: Request) -> int | None:
        """Tokens for it; 0: never; None: not yet."""
        if self._closed:
            return 0
        if self.tokens is None:
            return request.cap
        cap = min(request.cap, self.tokens)
        free = self.tokens - self.used - self.reserved
        if cap <= free:
            return cap
        if self.reserved:
            return None
        return free if not request.whole and free >= self._longest else 0
