"""Guesses the encoding of a text from its bytes."""

from __future__ import annotations

import codecs
import re

from ponder.datasets.surface import Surface
from ponder.errors import InvalidInput

_MARKS = (
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_NAMES = {
    "utf-32": "UTF-32",
    "utf-16": "UTF-16",
    "utf-16-le": "UTF-16",
    "utf-16-be": "UTF-16",
    "latin-1": "Latin-1",
    "cp1252": "Windows-1252 (Latin-1)",
}
_ESCAPED = re.compile("[\udc80-\udcff]")
_MULTIBYTE = re.compile("[\u0080-\ud7ff\ue000-\U0010ffff]")
_OWN_OF_CP1252 = re.compile("[\udc80-\udc9f]")


def check_utf8(sample: bytes, surface: Surface) -> None:
    """Raises InvalidInput, with the remedy, if the beginning of a file shows that it has another encoding.

    In a text with other characters beyond ASCII, single bytes that are not UTF-8 are faults of their rows.
    """
    found = _other_encoding(sample)
    if found is not None:
        reason = f"it is not UTF-8, but {_NAMES[found]}: {surface.chosen('encoding', found)} reads it"
        if found in ("latin-1", "cp1252"):
            reason += f"; {surface.chosen('encoding', 'utf-8')} refuses only the rows that are not UTF-8"
        raise InvalidInput(reason, param="encoding")


def _other_encoding(sample: bytes) -> str | None:
    for mark, name in _MARKS:
        if sample.startswith(mark):
            return name
    # Every other byte is zero, and only those: mostly ASCII with two bytes per character.
    even, odd = sample[0::2].count(0), sample[1::2].count(0)
    if max(even, odd) * 4 > len(sample) and min(even, odd) * 10 < max(even, odd):
        return "utf-16-le" if odd > even else "utf-16-be"
    text = codecs.getincrementaldecoder("utf-8")("surrogateescape").decode(sample)
    if not _ESCAPED.search(text) or _MULTIBYTE.search(text.removeprefix("\ufeff")):
        return None
    return "cp1252" if _OWN_OF_CP1252.search(text) else "latin-1"


def fault(text: str) -> str | None:
    """Returns why a text decoded with `surrogateescape` is not UTF-8, or None if it is."""
    found = None if text.isascii() else _ESCAPED.search(text)
    if found is None:
        return None
    byte = ord(found[0]) - 0xDC00
    return f"it is not UTF-8 (byte 0x{byte:02X}); if the file is Latin-1, the encoding latin-1 reads it"
