"""The pages of one sequence, or of one group of its layers, and the keys by which others find its prefix."""

from __future__ import annotations

from array import array
from collections.abc import Sequence as Series
from hashlib import blake2b

import numpy as np
import numpy.typing as npt

PageKey = bytes


class PageTable:
    """The pages of one sequence, in order.

    keys: one for each full page of known tokens, whether or not the page is held; they outlive preemption.
    contents: the tokens of those pages, as bytes.
    num_registered: pages at the front that other sequences can find.
    num_dropped: pages at the front that the sequence reads no more, and does not hold. Their numbers stay, because
    kernels know by equal numbers what sequences share; they are of some page of the pool, which is never read.
    salt: sequences of different salts share no pages. group: the layers whose keys and values are in these pages, by
    number; tables of different groups share no pages.
    """

    __slots__ = ("contents", "group", "keys", "num_dropped", "num_registered", "pages", "salt")

    def __init__(self, salt: bytes = b"", group: int = 0) -> None:
        self.salt = salt
        self.group = group
        self.pages: array[int] = array("i")
        self.keys: list[PageKey] = []
        self.contents: list[bytes] = []
        self.num_registered = 0
        self.num_dropped = 0

    @property
    def held(self) -> array[int]:
        """The pages that the sequence holds."""
        return self.pages[self.num_dropped :] if self.num_dropped else self.pages

    def parent_key(self, index: int) -> PageKey:
        """Returns the key of everything before the page at this index."""
        if index:
            return self.keys[index - 1]
        return blake2b(self.salt, digest_size=16, person=bytes([self.group])).digest()

    def key_tokens(self, tokens: Series[int], page_size: int) -> None:
        """Extends `keys` to all full pages of `tokens`."""
        first, end = len(self.keys) * page_size, len(tokens) // page_size * page_size
        if first >= end:
            return
        contents, width = array("q", tokens[first:end]).tobytes(), page_size * 8
        key = self.parent_key(len(self.keys))
        for offset in range(0, len(contents), width):
            content = contents[offset : offset + width]
            key = blake2b(key + content, digest_size=16).digest()
            self.keys.append(key)
            self.contents.append(content)

    def cover_dropped(self) -> None:
        """Gives the pages at the front that the sequence never held the number of one that it holds."""
        if self.num_dropped and self.num_dropped < len(self.pages):
            self.pages[: self.num_dropped] = self.pages[self.num_dropped : self.num_dropped + 1] * self.num_dropped

    def renumber(self, new_numbers: npt.NDArray[np.int32]) -> None:
        """Replaces page numbers. new_numbers: `[num_pages]`, the new number of every page of the pool."""
        pages = new_numbers[np.frombuffer(self.pages, dtype=np.int32)]
        self.pages = array("i", pages.tobytes())
