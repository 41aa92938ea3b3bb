"""Finding stop strings in text that arrives token by token."""

from collections.abc import Sequence as Series

from ponder_worker.models.checkpoint.tokenizer import Tokenizer


class StopStrings:
    """Watches one sequence's generated text.

    before: ids that were generated before this text; a stop string may begin in theirs, and must end in this one. The
    separator must also begin in this one, and counts only where no stop string is found.

    Text is made of ids only when a string may end in the last of them: a step commits hundreds.
    """

    __slots__ = ("_before", "_endings", "_keep", "_separator", "_stream", "_strings", "_tail", "_unread")

    def __init__(
        self, strings: Series[str], tokenizer: Tokenizer, *, separator: str | None = None, before: Series[int] = ()
    ) -> None:
        self._strings = strings
        self._separator = separator
        self._stream = tokenizer.stream()
        wanted = (*strings, separator) if separator else strings
        first, *others = (tokenizer.ids_with(byte) for byte in {string.encode()[-1] for string in wanted})
        self._endings = first.union(*others) if others else first
        self._unread: list[int] = []
        self._keep = max(map(len, wanted)) - 1
        self._tail = self._end("".join(map(self._stream.push, before)))
        self._before = len(self._tail)  # characters of the tail that are of the text before

    def push(self, token: int) -> tuple[str, int] | None:
        """The string that this token completes, and the number of characters from its beginning on.

        Of several stop strings it is the one that begins first.
        """
        self._unread.append(token)
        if token not in self._endings:
            return None
        text = self._tail + "".join(map(self._stream.push, self._unread))
        self._unread.clear()
        found = [
            (place, string) for string in self._strings if (place := self._find(text, string, len(string) - 1)) >= 0
        ]
        if not found and self._separator and (place := self._find(text, self._separator, 0)) >= 0:
            found = [(place, self._separator)]
        # A stream that is too short to end goes on, and what was found is not found again.
        self._tail = "" if found else self._end(text)
        self._before = max(0, self._before + len(self._tail) - len(text))
        if not found:
            return None
        place, string = min(found)
        return string, len(text) - place

    def _find(self, text: str, string: str, reach: int) -> int:
        """Where it begins, at most `reach` characters before this text; -1 where it is not."""
        return text.find(string, max(0, self._before - reach))

    def _end(self, text: str) -> str:
        return text[-self._keep :] if self._keep else ""
