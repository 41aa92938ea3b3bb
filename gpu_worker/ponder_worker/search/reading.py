"""What verifiers read of a text that has no number to extract: all that was said, a letter, or a program."""

from __future__ import annotations

import re

from ponder_worker.search.answer import of_reference

_FIRST = re.compile(r"(?:(?:option|choice)\s+)?[(\[{*\s]*(?:\\text(?:bf)?\{)?\(?([A-Ja-j])(?![A-Za-z'])", re.IGNORECASE)
_ALONE = re.compile(r"(?<![A-Za-z'])([A-J])(?![A-Za-z']|\s+[a-z])")
_FENCED = re.compile(r"```[ \t]*(?:python3?|py)?[ \t]*\n(.*?)(?:\n```|\Z)", re.DOTALL | re.IGNORECASE)


def spoken(text: str) -> str:
    """All that stands after the thought."""
    return text.rpartition("</think>")[2].strip()


def letter(text: str) -> str | None:
    """The choice, A to J: where the text marks its answer (`Answer: (C)`, `\\boxed{C}`), else the last lone capital."""
    text = spoken(text)
    marked = of_reference(text)
    if marked != text or len(text) <= 4:
        found = _FIRST.match(marked)
        if found is not None:
            return found[1].upper()
    alone: list[str] = _ALONE.findall(text)
    return alone[-1] if alone else None


def program(text: str) -> str | None:
    """The last block of Python; a text without any fence is a program as a whole. None where there is no text."""
    text = spoken(text)
    blocks: list[str] = _FENCED.findall(text)
    return (blocks[-1] if blocks else text) or None
