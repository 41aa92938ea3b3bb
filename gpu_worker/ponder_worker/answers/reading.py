"""Reads what is no short answer: all that was said, the letter of a choice, or a program."""

from __future__ import annotations

import re

from ponder_worker.answers.extraction import after_thought
from ponder_worker.answers.mark import marked_line

_OPENING = r"[(\[{* ]{0,4}(?:\\text(?:bf)?\{)?\(?"
_WHOLE = r"(?![A-Za-z'])"
# Tells a choice from an article, a pronoun and a variable, which other words follow.
_ENDED = r"(?=\s?(?:[.):,*}\]]|\Z)|\s(?:[-–—]|(?:because|since|is)\b))"
_FIRST = re.compile(
    rf"(?i:option|choice) {_OPENING}([A-Ja-j]){_WHOLE}|{_OPENING}([B-HJ]){_WHOLE}|{_OPENING}([AIa-j]){_ENDED}"
)
_SEVERAL = re.compile(
    r"(?:(?i:options?|choices?|both|either) )?[(\[{*]{0,4}[A-J][)\]}*]{0,4}(?:, ?| ?& ?| ?/ ?|,? (?:and|or) )"
    r"[(\[{*]{0,4}[A-J](?![A-Za-z']| [a-z])"
)
"""Two letters. They choose nothing."""
_BRACKETED = re.compile(r"(?<![A-Za-z0-9])[(\[] ?([A-Ja-j]) ?[)\]]")
_ALONE = re.compile(r"(?<![A-Za-z'])(?<!\bnot )(?<!\bNot )([A-J])(?![A-Za-z']| [a-z])")
_CHOSEN = re.compile(
    r"(?:(?i:\b(?:option|choice)) \(?(?P<named>[A-J])\)? (?:is|must be) (?:the )?(?:correct|right|best)\b"
    r"|(?i:\b(?:so|thus|hence|therefore)),? \(?(?P<so>[A-J])\)? is (?:the )?(?:correct|right|best|answer)\b"
    r"|(?i:\bI(?: think|(?: would|'d) (?:say|choose|pick|go with)))(?: it's| it is)? \(?(?P<thought>[A-J])\)?"
    r"(?= because| since|[.,!]|\Z)"
    r"|(?i:\bthe (?:best|right|correct) (?:choice|option) is),? \(?(?P<best>[A-J])\)?(?![A-Za-z']))"
)
"""A sentence that chooses."""
_JOINED = re.compile(r"(?<![A-Za-z])[A-J][)\]*]{0,3}(?: ?& ?| and | or )[(\[*]{0,3}\Z")
_LONGEST_JOINT = 14
_PYTHON = frozenset({"", "python", "python3", "py"})
_LONGEST_MARK = 300


def spoken(text: str) -> str:
    """Returns all text after the thought, and no text if the thought was cut off."""
    return (after_thought(text) or "").strip()


def unfenced(text: str) -> str:
    """Returns the same without the code fence that models like to put around it."""
    text = spoken(text)
    fenced = re.fullmatch(r"```[a-zA-Z]*\n(.*?)\n?```", text, re.DOTALL)
    return fenced.group(1) if fenced else text


def letter(text: str) -> str | None:
    """Returns the choice, A to J: the marked one (`Answer: (C)`, `\\boxed{C}`), else the last lone capital.

    Behind a mark the letter comes first or stands in brackets. `A multiple of 3` does not begin with a choice.
    A text of up to four characters counts as marked.
    """
    said = after_thought(text)
    mark = marked_line(text if said is None else said)
    said = " ".join((said or "").split())
    if mark is None and len(said) <= 4:
        mark = said
    if mark is not None:
        mark = " ".join(mark[:_LONGEST_MARK].split())
        if _SEVERAL.match(mark):
            return None
        if (found := _FIRST.match(mark)) is not None:
            return found[found.lastindex or 0].upper()
        if bracketed := _BRACKETED.findall(mark):
            return str(bracketed[-1]).upper()
    if chosen := list(_CHOSEN.finditer(said)):
        return chosen[-1][chosen[-1].lastgroup or 0]
    alone = max(_ALONE.finditer(said), key=re.Match.end, default=None)
    if alone is None or _JOINED.search(said, max(0, alone.start() - _LONGEST_JOINT), alone.start()):
        return None
    return alone[0]


def program(text: str) -> str | None:
    """Returns the last block of Python, or the whole text if it has no fence. Returns None for an empty text."""
    text = spoken(text)
    blocks: list[str] = []
    block: list[str] | None = None
    for line in text.split("\n"):
        if block is not None and line.startswith("```"):
            blocks.append("\n".join(block))
            block = None
        elif block is not None:
            block.append(line)
        elif "```" in line and line.rpartition("```")[2].strip().lower() in _PYTHON:
            block = []
    if block is not None:
        blocks.append("\n".join(block))
    return (blocks[-1] if blocks else text) or None
