"""The pages of one sequence, and the chain of keys by which it finds pages that already hold its prefix."""

from __future__ import annotations

from array import array
from collections.abc import Mapping
from collections.abc import Sequence as Series
from hashlib import blake2b

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
        for first in range(len(self.keys) * page_size, len(tokens) - page_size + 1, page_size):
            content = array("q", tokens[first : first + page_size]).tobytes()
            parent = self.parent_key(len(self.keys))
            self.keys.append(blake2b(parent + content, digest_size=16).digest())
            self.contents.append(content)

    def rename(self, moves: Mapping[int, int]) -> None:
        """Pages that were moved, from -> to; the others stay."""
        if not moves.keys().isdisjoint(self.pages):
            self.pages = array("i", map(moves.get, self.pages, self.pages))
