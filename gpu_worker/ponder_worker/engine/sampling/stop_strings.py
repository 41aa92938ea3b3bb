"""Finds stop strings in text that arrives token by token."""

from collections.abc import Sequence as Series

from ponder_worker.models.checkpoint.tokenizer import Tokenizer


class StopStrings:
    """Watches the generated text of one sequence.

    Tokens are turned into text only when a string may end in the last of them, since a step commits hundreds.
    """

    __slots__ = ("_keep", "_last_tokens", "_num_before", "_separator", "_stream", "_strings", "_tail", "_unread")

    def __init__(
        self, strings: Series[str], tokenizer: Tokenizer, *, separator: str | None = None, before: Series[int] = ()
    ) -> None:
        """Starts to watch a text that follows the ids `before`, which were generated earlier.

        A stop string may begin in their text, and must end in this one. The separator must also begin in this text, and
        counts only where no stop string is found.
        """
        self._strings = strings
        self._separator = separator
        self._stream = tokenizer.stream()
        wanted = (*strings, separator) if separator else strings
        first, *others = (tokenizer.ids_with(byte) for byte in {string.encode()[-1] for string in wanted})
        self._last_tokens = first.union(*others) if others else first
        self._unread: list[int] = []
        self._keep = max(map(len, wanted)) - 1
        self._tail = self._end_of("".join(map(self._stream.push, before)))
        self._num_before = len(self._tail)  # characters of the tail that belong to the text before

    def push(self, token: int, too_early: bool = False) -> tuple[str, int] | None:
        """Adds a token. Returns the string that it completes, and the number of characters from its start to the end.

        Of several stop strings, the one that begins first is returned. too_early: only the separator is returned.
        """
        self._unread.append(token)
        if token not in self._last_tokens:
            return None
        text = self._tail + "".join(map(self._stream.push, self._unread))
        self._unread.clear()
        found = [
            (place, string) for string in self._strings if (place := self._find(text, string, len(string) - 1)) >= 0
        ]
        is_over = bool(found) and too_early
        if is_over:
            found = []
        if not found and self._separator and (place := self._find(text, self._separator, 0)) >= 0:
            found = [(place, self._separator)]
        # A sequence below its min_tokens goes on, and must not find the same string again.
        self._tail = "" if found or is_over else self._end_of(text)
        self._num_before = max(0, self._num_before + len(self._tail) - len(text))
        if not found:
            return None
        place, string = min(found)
        return string, len(text) - place

    def _find(self, text: str, string: str, reach: int) -> int:
        """Returns where the string begins, at most `reach` characters before this text; -1 if it is not there."""
        return text.find(string, max(0, self._num_before - reach))

    def _end_of(self, text: str) -> str:
        return text[-self._keep :] if self._keep else ""
