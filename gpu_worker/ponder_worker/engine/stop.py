"""Finding stop strings in text that arrives token by token."""

from collections.abc import Sequence as Series

from ponder_worker.models.tokenizer import TextStream


class StopStrings:
    """Watches one sequence's generated text.

    before: ids that were generated before this text; a stop string may begin in theirs, and must end in this one. The
    separator must also begin in this one, and counts only where no stop string is found.
    """

    __slots__ = ("_before", "_keep", "_separator", "_stream", "_strings", "_tail")

    def __init__(
        self, strings: Series[str], stream: TextStream, *, separator: str | None = None, before: Series[int] = ()
    ) -> None:
        self._strings = strings
        self._separator = separator
        self._stream = stream
        self._keep = max(map(len, (*strings, separator or ""))) - 1
        self._tail = self._end("".join(map(stream.push, before)))
        self._before = len(self._tail)  # characters of the tail that are of the text before

    def push(self, token: int) -> tuple[str, int] | None:
        """The string that this token completes, and the number of characters from its beginning on.

        Of several stop strings it is the one that begins first.
        """
        text = self._tail + self._stream.push(token)
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
