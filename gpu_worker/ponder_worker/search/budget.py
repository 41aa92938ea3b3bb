"""The hard wall around a job's generated tokens: who may not be able to stay inside does not start."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class _Request:
    cap: int
    whole: bool
    answer: Callable[[int], None]


class Wall:
    """Grants reservations in the order in which they were asked for; used + reserved never exceeds `tokens`.

    A sample reserves its cap, and the answer's tail, before its first token and returns what it did not use. Who is
    granted does not depend on time: the first in line waits while somebody ahead of it may still return tokens, and is
    refused only when nobody can.
    """

    def __init__(self, tokens: int | None, *, tail_tokens: int = 0) -> None:
        self.tokens = tokens
        self.used = 0
        self.reserved = 0
        self.refused = False
        """Whether anybody was ever refused: then the budget ended the search."""
        self._tail = tail_tokens
        self._longest = 1
        self._line: deque[_Request] = deque()
        self._closed = False

    def ask(self, cap: int, *, whole: bool, answer: Callable[[int], None]) -> None:
        """`answer` gets the tokens granted, now or later; 0 is a refusal.

        whole: all of `cap` or nothing. Otherwise, when nobody runs any more, what is left is granted, if the longest
        sample so far would fit: a sample's length was not limited by a person, only by the model's context.
        """
        assert cap > 0
        self._line.append(_Request(cap, whole, answer))
        self._serve()

    def restore(self, cap: int) -> None:
        """A half-grown sample of a former attempt holds its reservation again."""
        self.reserved += cap + self._tail

    def settle(self, cap: int, used: int) -> None:
        """A sample that was granted `cap` has ended with `used` tokens."""
        assert used <= cap
        self.reserved -= cap + self._tail
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
                self.reserved += granted + self._tail
                self.check()
            else:
                self.refused = self.refused or not self._closed
            request.answer(granted)

    def _grant(self, request: _Request) -> int | None:
        """Tokens for it; 0: never; None: not yet."""
        if self._closed:
            return 0
        if self.tokens is None:
            return request.cap
        cap = min(request.cap, max(1, self.tokens - self._tail))
        free = self.tokens - self.used - self.reserved - self._tail
        if cap <= free:
            return cap
        if self.reserved:
            return None
        return free if not request.whole and free >= self._longest else 0
