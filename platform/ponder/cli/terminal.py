"""Replaces control characters in what is printed, because prompts, field names and errors are untrusted text."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, TextIO

CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
"""All control characters but tabs and line ends, including those that begin escape sequences or reverse text."""


def harmless(text: str) -> str:
    """Returns the text with U+FFFD for each control character."""
    return CONTROL.sub("\ufffd", text)


class _Harmless:
    """A stream that writes only harmless text. In everything else it is the stream it wraps."""

    def __init__(self, stream: TextIO) -> None:
        self.stream = stream

    def write(self, text: str) -> int:
        return self.stream.write(harmless(text))

    def writelines(self, texts: Iterable[str]) -> None:
        for text in texts:
            self.write(text)

    def __getattr__(self, name: str) -> Any:
        # Otherwise click would write bytes into the stream below.
        if name == "buffer":
            raise AttributeError(name)
        return getattr(self.stream, name)


@contextmanager
def harmless_streams() -> Iterator[None]:
    """Makes everything that is printed inside a `with` go through `harmless`."""
    out, err = sys.stdout, sys.stderr
    sys.stdout, sys.stderr = _Harmless(out), _Harmless(err)
    try:
        yield
    finally:
        sys.stdout, sys.stderr = out, err


def below(stream: TextIO) -> TextIO:
    """Returns the stream under `harmless_streams`, for writers of their own escape sequences or of bytes."""
    return stream.stream if isinstance(stream, _Harmless) else stream
