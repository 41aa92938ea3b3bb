"""What verifiers read of a text that has no number to extract: all that was said, a letter, or a program."""

from __future__ import annotations

import re

from ponder_worker.search.answer import of_reference

_OPENING = r"[(\[{*\s]*(?:\\text(?:bf)?\{)?\(?"
_WHOLE = r"(?![A-Za-z'])"
# An article, a pronoun or a variable is followed by something else.
_ENDED = r"(?=\s*(?:[.):,*}\]]|\Z)|\s+(?:[-–—]|(?:because|since|is)\b))"
_FIRST = re.compile(
    rf"(?i:option|choice)\s+{_OPENING}([A-Ja-j]){_WHOLE}|{_OPENING}([B-HJ]){_WHOLE}|{_OPENING}([AIa-j]){_ENDED}"
)
_BRACKETED = re.compile(r"(?<![A-Za-z0-9])[(\[]\s*([A-Ja-j])\s*[)\]]")
_ALONE = re.compile(r"(?<![A-Za-z'])([A-J])(?![A-Za-z']|\s+[a-z])")
_FENCED = re.compile(r"```[ \t]*(?:python3?|py)?[ \t]*\n(.*?)(?:\n```|\Z)", re.DOTALL | re.IGNORECASE)


def spoken(text: str) -> str:
    """All that stands after the thought."""
    return text.rpartition("</think>")[2].strip()


def letter(text: str) -> str | None:
    """The choice, A to J: where the text marks its answer (`Answer: (C)`, `\\boxed{C}`), else the last lone capital.

    Behind a mark it comes first (`A multiple of 3` does not begin with one), or stands in brackets.
    """
    text = spoken(text)
    marked = of_reference(text)
    if marked != text or len(text) <= 4:
        if (found := _FIRST.match(marked)) is not None:
            return found[found.lastindex or 0].upper()
        if bracketed := _BRACKETED.findall(marked):
            return str(bracketed[-1]).upper()
    alone: list[str] = _ALONE.findall(text)
    return alone[-1] if alone else None


def program(text: str) -> str | None:
    """The last block of Python; a text without any fence is a program as a whole. None where there is no text."""
    text = spoken(text)
    blocks: list[str] = _FENCED.findall(text)
    return (blocks[-1] if blocks else text) or None
