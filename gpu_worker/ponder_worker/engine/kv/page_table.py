"""The pages of one sequence, and the chain of keys by which it finds pages that already hold its prefix."""

from __future__ import annotations

from array import array
from collections.abc import Sequence as Series
from hashlib import blake2b

import numpy as np
import numpy.typing as npt

PageKey = bytes


class PageTable:
    """The pages of one sequence in order.

    keys: one for each full page of its known tokens, page or no page; they outlive preemption.
    num_registered: pages at the front that others can find.
    """

    __slots__ = ("contents", "keys", "num_registered", "pages", "salt")

    def __init__(self, salt: bytes = b"") -> None:
        self.salt = salt
        self.pages: array[int] = array("i")
        self.keys: list[PageKey] = []
        self.contents: list[bytes] = []
        self.num_registered = 0

    def parent_key(self, index: int) -> PageKey:
        """Of everything before the page of this index."""
        return self.keys[index - 1] if index else blake2b(self.salt, digest_size=16).digest()

    def key_tokens(self, tokens: Series[int], page_size: int) -> None:
        """Extends `keys` to all full pages of `tokens`."""
        first, end = len(self.keys) * page_size, len(tokens) // page_size * page_size
        if first >= end:
            return
        contents, width = array("q", tokens[first:end]).tobytes(), page_size * 8
        key = self.parent_key(len(self.keys))
        for place in range(0, len(contents), width):
            content = contents[place : place + width]
            key = blake2b(key + content, digest_size=16).digest()
            self.keys.append(key)
            self.contents.append(content)

    def rename(self, names: npt.NDArray[np.int32]) -> None:
        """names: of all pages, by their former numbers, `[num_pages]`"""
        pages = names[np.frombuffer(self.pages, dtype=np.int32)]
        self.pages = array("i", pages.tobytes())
