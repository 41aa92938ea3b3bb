"""Finding stop strings in text that arrives token by token."""

from collections.abc import Sequence as Series

from ponder_worker.models.tokenizer import TextStream


class StopStrings:
    """Watches one sequence's generated text."""

    __slots__ = ("_keep", "_stream", "_strings", "_tail")

    def __init__(self, strings: Series[str], stream: TextStream) -> None:
        self._strings = strings
        self._stream = stream
        self._keep = max(map(len, strings)) - 1
        self._tail = ""

    def push(self, token: int) -> tuple[str, int] | None:
        """The earliest stop string that this token completes, and the number of characters from its beginning on."""
        text = self._tail + self._stream.push(token)
        found = [(place, string) for string in self._strings if (place := text.find(string)) >= 0]
        if found:
            place, string = min(found)
            self._tail = ""  # for a stream that is too short to end, and goes on
            return string, len(text) - place
        self._tail = text[-self._keep :] if self._keep else ""
        return None
