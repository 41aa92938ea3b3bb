"""How a model thinks before it answers, and how it is brought to its answer in time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

_OPENS_WITHIN = 8
"""Tokens of a sample in which a thought must have begun, if the sample thinks at all."""
_WITHIN = 8
"""Tokens at the end of a prompt behind a mark that counts: the template has opened a thought, or left one empty, so
that the model shall not think. What a user writes further up means nothing."""


@dataclass(frozen=True, slots=True)
class Thought:
    """open_ids, close_ids: what stands around a thought; both empty: all of the sample is thought until it is closed.

    close: the text of close_ids. closing_ids: what is forced when the thought must end (budget forcing, Muennighoff et
    al. 2025, https://arxiv.org/abs/2501.19393). answer_tokens: what a sample keeps for its answer, a quarter at most.
    """

    open_ids: tuple[int, ...]
    close_ids: tuple[int, ...]
    close: str
    closing_ids: tuple[int, ...]
    answer_tokens: int

    def measure(self, prompt: Sequence[int], ids: Sequence[int]) -> tuple[int, bool]:
        """-> (tokens of the thought, whether it goes on) of a sample's ids so far, the marks around it not counted."""
        start = self._start(prompt, ids)
        if start is None:
            return 0, False
        end = find(self.close_ids or self.closing_ids, ids, start)
        return (len(ids) - start, True) if end is None else (end - start, False)

    def latest_end(self, cap: int) -> int | None:
        """Of a sample's `cap` tokens those in which its thought must end, so that an answer follows; None: too few."""
        latest = cap - len(self.closing_ids) - min(self.answer_tokens, cap // 4)
        return latest if latest > 0 else None

    def _start(self, prompt: Sequence[int], ids: Sequence[int]) -> int | None:
        """Where the thought begins in a sample's ids; None if it does not think."""
        if not self.open_ids:
            return 0
        end = prompt[-max(len(self.open_ids), len(self.close_ids)) - _WITHIN :]
        opened, closed = rfind(self.open_ids, end), rfind(self.close_ids, end)
        if opened is not None and (closed is None or closed < opened):
            return 0
        if closed is not None:
            return None
        first = find(self.open_ids, ids[: _OPENS_WITHIN + len(self.open_ids)], 0)
        if first is None:
            return len(ids) if len(ids) < _OPENS_WITHIN else None
        return first + len(self.open_ids)


def find(wanted: Sequence[int], ids: Sequence[int], start: int) -> int | None:
    """Where the first run of these ids begins."""
    last = len(ids) - len(wanted)
    while start <= last:
        try:
            start = ids.index(wanted[0], start, last + 1)
        except ValueError:
            return None
        if tuple(ids[start : start + len(wanted)]) == tuple(wanted):
            return start
        start += 1
    return None


def rfind(wanted: Sequence[int], ids: Sequence[int]) -> int | None:
    """Where the last run of these ids begins."""
    found = find(wanted[::-1], list(ids)[::-1], 0)
    return None if found is None else len(ids) - found - len(wanted)
