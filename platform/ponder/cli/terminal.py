"""What a terminal would obey is shown instead of done: prompts, field names and errors are anybody's text."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, TextIO

CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
"""All but tabs and ends of lines; escape sequences begin with one of these. The last ones turn text around."""


def harmless(text: str) -> str:
    """The text with U+FFFD for each character that a terminal would obey."""
    return CONTROL.sub("\ufffd", text)


class _Harmless:
    """A stream to which only harmless text is written; in all else it is the stream that it stands for."""

    def __init__(self, stream: TextIO) -> None:
        self.stream = stream

    def write(self, text: str) -> int:
        return self.stream.write(harmless(text))

    def writelines(self, texts: Iterable[str]) -> None:
        for text in texts:
            self.write(text)

    def __getattr__(self, name: str) -> Any:
        # click would write into the bytes below.
        if name == "buffer":
            raise AttributeError(name)
        return getattr(self.stream, name)


@contextmanager
def harmless_streams() -> Iterator[None]:
    """Everything that is printed meanwhile goes through `harmless`, whoever prints it."""
    out, err = sys.stdout, sys.stderr
    sys.stdout, sys.stderr = _Harmless(out), _Harmless(err)
    try:
        yield
    finally:
        sys.stdout, sys.stderr = out, err


def below(stream: TextIO) -> TextIO:
    """For one that writes escape sequences of its own, or bytes as they are: the stream under `harmless_streams`."""
    return stream.stream if isinstance(stream, _Harmless) else stream
