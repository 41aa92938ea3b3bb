"""The hard limit on a job's generated tokens: a sample that might exceed it does not start."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, eq=False)
class Reservation:
    """A sample's request for tokens. is_whole, answer: see `TokenBudget.reserve`."""

    cap: int
    is_whole: bool
    answer: Callable[[int], None]


class TokenBudget:
    """Grants reservations in the order of their requests; used + reserved never exceeds `tokens`.

    A sample reserves its cap before its first token and returns what it did not use. Grants do not depend on time: the
    first in the queue waits while a running sample may still return tokens, and is refused only when none can.
    """

    def __init__(self, tokens: int | None) -> None:
        self.tokens = tokens
        self.used = 0
        self.reserved = 0
        self._longest = 1
        self._queue: deque[Reservation] = deque()
        self._is_closed = False

    def reserve(self, cap: int, *, is_whole: bool, answer: Callable[[int], None]) -> Reservation:
        """Calls `answer` with the number of tokens granted, now or later; 0 is a refusal.

        is_whole: grants all of `cap` or nothing. Otherwise, once no sample is running, what is left is granted if the
        longest sample so far would fit into it: the cap then is only the model's context, not the user's wish.
        """
        assert cap > 0
        reservation = Reservation(cap, is_whole, answer)
        self._queue.append(reservation)
        self._serve()
        return reservation

    def withdraw(self, reservation: Reservation) -> None:
        """Takes the reservation out of the queue, if it is still there. It is not answered."""
        if reservation in self._queue:
            self._queue.remove(reservation)
            self._serve()

    def restore(self, cap: int) -> None:
        """Reserves again what a half-grown sample of a former attempt had reserved."""
        self.reserved += cap

    def settle(self, cap: int, used: int) -> None:
        """Replaces a grant of `cap` by the tokens that its sample used."""
        assert used <= cap
        self.reserved -= cap
        self.count(used)
        self._serve()

    def count(self, used: int) -> None:
        """Counts the tokens of a sample that ended, just now or in a former attempt."""
        self.used += used
        self._longest = max(self._longest, used)
        self.check()

    def close(self) -> None:
        """Refuses everything from now on."""
        self._is_closed = True
        self._serve()

    def check(self) -> None:
        """Raises AssertionError if the limit was exceeded, or could be."""
        assert self.reserved >= 0
        assert self.tokens is None or self.used + self.reserved <= self.tokens

    def _serve(self) -> None:
        while self._queue:
            granted = self._grant(self._queue[0])
            if granted is None:
                return
            reservation = self._queue.popleft()
            self.reserved += granted
            self.check()
            reservation.answer(granted)

    def _grant(self, reservation: Reservation) -> int | None:
        """Returns the tokens for a reservation; 0 if there never will be enough, None if that is not yet known."""
        if self._is_closed:
            return 0
        if self.tokens is None:
            return reservation.cap
        cap = min(reservation.cap, self.tokens)
        free = self.tokens - self.used - self.reserved
        if cap <= free:
            return cap
        if self.reserved:
            return None
        return free if not reservation.is_whole and free >= self._longest else 0
