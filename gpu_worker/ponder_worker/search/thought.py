"""How a model thinks before it answers, and when its thought must end so that an answer still fits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

_OPENS_WITHIN = 8
"""A thought opens within this many tokens of a sample, or the sample does not think."""
_PROMPT_TAIL = 8
"""A mark counts in a prompt only if at most this many tokens follow it: the chat template has opened a thought there,
or has left an empty one so that the model does not think. Marks that the user writes further up mean nothing."""
_UNMARKED_ANSWER_TOKENS = 128
"""The tokens that a sample keeps for its answer if the model has no marks around its thought."""


@dataclass(frozen=True, slots=True)
class Thought:
    """The marks around a model's thought.

    open_ids, close_ids: the marks; if both are empty, the whole sample is a thought until it is closed. close: the text
    of close_ids. closing_ids: what is forced where the thought must end (budget forcing, Muennighoff et al. 2025,
    https://arxiv.org/abs/2501.19393). answer_tokens: what a sample keeps for its answer, but a quarter of it at most.
    is_strict: only a mark that is a sample's first id opens its thought, and any other mark there is text.
    """

    open_ids: tuple[int, ...]
    close_ids: tuple[int, ...]
    close: str
    closing_ids: tuple[int, ...]
    answer_tokens: int
    is_strict: bool = False

    @classmethod
    def unmarked(cls, closing_ids: Sequence[int]) -> Thought:
        """Returns the thought of a model without marks around it: all of a sample until it is made to answer."""
        return cls((), (), "", tuple(closing_ids), _UNMARKED_ANSWER_TOKENS)

    def measure(self, prompt: Sequence[int], ids: Sequence[int]) -> tuple[int, bool]:
        """Returns how many of a sample's ids are thought, marks not counted, and whether the thought is still open."""
        found = self.span(prompt, ids)
        if found is None:
            return 0, False
        start, end = found
        return (len(ids) - start, True) if end is None else (end - start, False)

    def span(self, prompt: Sequence[int], ids: Sequence[int]) -> tuple[int, int | None] | None:
        """Returns where in a sample's ids its thought begins and ends, marks not included; None if it does not think.

        The end is None while the thought is open.
        """
        start = self._start(prompt, ids)
        return None if start is None else (start, find(self.close_ids or self.closing_ids, ids, start))

    def is_open(self, prompt: Sequence[int]) -> bool | None:
        """Returns whether the prompt opens a thought, or has closed it already; None if that is left to the model."""
        if not self.open_ids:
            return True
        end = prompt[-max(len(self.open_ids), len(self.close_ids)) - _PROMPT_TAIL :]
        opened, closed = rfind(self.open_ids, end), rfind(self.close_ids, end)
        if opened is not None and (closed is None or closed < opened):
            return True
        return None if closed is None else False

    def latest_end(self, cap: int) -> int | None:
        """Returns where in a sample of `cap` tokens its thought must end at the latest; None if `cap` is too small."""
        latest = cap - len(self.closing_ids) - min(self.answer_tokens, cap // 4)
        return latest if latest > 0 else None

    def _start(self, prompt: Sequence[int], ids: Sequence[int]) -> int | None:
        """Returns where in a sample's ids the thought begins; None if the sample does not think."""
        is_open = self.is_open(prompt)
        if is_open is not None:
            return 0 if is_open else None
        within = 0 if self.is_strict else _OPENS_WITHIN
        first = find(self.open_ids, ids[: within + len(self.open_ids)], 0)
        if first is None:
            return len(ids) if len(ids) < max(1, within) else None
        return first + len(self.open_ids)


class ThoughtWatch:
    """Watches a growing sample for the first id after its thought. Looks at each id once.

    prompt_length, turn_start: where in the tokens the prompt ends and the sample begins.
    """

    def __init__(self, thought: Thought, prompt_length: int, turn_start: int) -> None:
        self._thought = thought
        self._prompt_length = prompt_length
        self._turn_start = turn_start
        self._prompt: Sequence[int] | None = None
        """As much of the prompt's end as matters."""
        self._next = turn_start
        """Where the closing mark may still begin."""

    def is_over(self, tokens: Sequence[int]) -> bool:
        """Returns whether the last token is outside the thought. It counts as inside while that is not decided."""
        thought, start = self._thought, self._turn_start
        if self._prompt is None:
            size = max(len(thought.open_ids), len(thought.close_ids)) + _PROMPT_TAIL
            self._prompt = tokens[max(0, self._prompt_length - size) : self._prompt_length]
        if thought.span(self._prompt, tokens[start : start + _OPENS_WITHIN + len(thought.open_ids)]) is None:
            return True
        mark = thought.close_ids or thought.closing_ids
        end = find(mark, tokens, self._next)
        if end is None:
            self._next = max(self._next, len(tokens) - len(mark) + 1)
            return False
        self._next = end
        return len(tokens) > end + len(mark)


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
