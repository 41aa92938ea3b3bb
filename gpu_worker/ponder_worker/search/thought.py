"""How a model thinks before it answers, and when its thought must end so that an answer still fits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

_OPENS_WITHIN = 8
"""A thought opens within this many tokens of a sample, or the sample does not think."""
_PROMPT_TAIL = 8
"""A mark counts in a prompt only if at most this many tokens follow it: the chat template has opened a thought there,
or has left an empty one so that the model does not think. Marks that the user writes further up mean nothing."""


@dataclass(frozen=True, slots=True)
class Thought:
    """The marks around a model's thought.

    open_ids, close_ids: the marks; if both are empty, the whole sample is a thought until it is closed. close: the text
    of close_ids. closing_ids: what is forced where the thought must end (budget forcing, Muennighoff et al. 2025,
    https://arxiv.org/abs/2501.19393). answer_tokens: what a sample keeps for its answer, but a quarter of it at most.
    """

    open_ids: tuple[int, ...]
    close_ids: tuple[int, ...]
    close: str
    closing_ids: tuple[int, ...]
    answer_tokens: int

    def measure(self, prompt: Sequence[int], ids: Sequence[int]) -> tuple[int, bool]:
        """Returns how many of a sample's ids are thought, marks not counted, and whether the thought is still open."""
        start = self._start(prompt, ids)
        if start is None:
            return 0, False
        end = find(self.close_ids or self.closing_ids, ids, start)
        return (len(ids) - start, True) if end is None else (end - start, False)

    def latest_end(self, cap: int) -> int | None:
        """Returns where in a sample of `cap` tokens its thought must end at the latest; None if `cap` is too small."""
        latest = cap - len(self.closing_ids) - min(self.answer_tokens, cap // 4)
        return latest if latest > 0 else None

    def _start(self, prompt: Sequence[int], ids: Sequence[int]) -> int | None:
        """Returns where in a sample's ids the thought begins; None if the sample does not think."""
        if not self.open_ids:
            return 0
        end = prompt[-max(len(self.open_ids), len(self.close_ids)) - _PROMPT_TAIL :]
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
    """Returns where the first run of these ids begins, at `start` or later."""
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
    """Returns where the last run of these ids begins."""
    found = find(wanted[::-1], list(ids)[::-1], 0)
    return None if found is None else len(ids) - found - len(wanted)
