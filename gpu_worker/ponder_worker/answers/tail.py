"""What stands behind a label, without what follows the answer there."""

from __future__ import annotations

import re

from ponder_worker.answers.remark import without_remarks

_LONGEST = 2_000
"""Characters of a line that are looked at."""
_LONGEST_MARKUP = 8
_SKIPPED = " \t\r\n*_`}✅"
_ENVIRONMENTS = (
    "align*", "align", "aligned", "equation*", "equation", "gather*", "gather", "gathered", "displaymath",
)  # fmt: skip
_BLOCKS = (
    ("$$", "$$"),
    (r"\[", r"\]"),
    ("```", "```"),
    *((rf"\begin{{{name}}}", rf"\end{{{name}}}") for name in _ENVIRONMENTS),
)
_INITIAL = re.compile(r" ?[A-Z]$")
_INITIALS = re.compile(r"(?:(?<![A-Za-z])[A-Z]\. ?)+[A-Z]\Z")
_FIRST_NAME = re.compile(r"[A-Z][a-z]+ [A-Z]\Z")
_LONGEST_INITIALS = 30
_BULLET = re.compile(r"(?:[-•]|>{1,3}) (?=\S)[*_`]{0,3}")


def read_tail(text: str, place: int) -> str | None:
    """The answer that begins at this place of a text, or on the next line that is not empty; None without any."""
    start = _start(text, place)
    for opening, closing in _BLOCKS:
        if text.startswith(opening, start):
            found = _block(text[start + len(opening) : start + _LONGEST], closing)
            if found:
                return found
    is_sentence = _is_sentence(text, place)
    line = _first_sentence(read_line(text, place), is_sentence=is_sentence)
    return without_remarks(line, is_sentence=is_sentence) or None


def read_line(text: str, place: int) -> str:
    """All of that line; empty where nothing follows."""
    start = _start(text, place)
    return text[start : start + _LONGEST].partition("\n")[0].rstrip()


def _is_sentence(text: str, place: int) -> bool:
    """Whether words lead to the place, as in `The answer is 5!`, and no label such as `Answer:`."""
    return text[max(0, place - _LONGEST_MARKUP) : place].rstrip(" \t*_`")[-1:].isalpha()


def _start(text: str, place: int) -> int:
    end = min(len(text), place + _LONGEST)
    while place < end and text[place] in _SKIPPED and not text.startswith("```", place):
        place += 1
    bullet = _BULLET.match(text, place) if text[place - 1 : place] == "\n" else None
    return bullet.end() if bullet else place


def _block(text: str, closing: str) -> str | None:
    content, found, _ = text.partition(closing)
    if not found:
        return None
    language, _, rest = content.partition("\n")
    if closing == "```" and rest.strip() and language.strip().isalpha():
        content = rest
    if closing.startswith(r"\end"):
        content = content.replace("&", "").rpartition(r"\\")[2]
    return content.strip().strip(".,").strip()


def _first_sentence(line: str, *, is_sentence: bool) -> str:
    """Up to a full stop or an exclamation that ends one, outside of formulas."""
    in_formula = 0
    place = 0
    while place < len(line):
        character = line[place]
        if character == "\\":
            in_formula += {"(": 1, "[": 1, ")": -1, "]": -1}.get(line[place + 1 : place + 2], 0)
            place += 2
            continue
        if character == "$":
            in_formula = 0 if in_formula else (1 if "$" in line[place + 1 :] else 0)
        elif character in ".。?" and not in_formula and _ends_sentence(line, place, is_sentence=is_sentence):
            return line[:place]
        place += 1
    return line


def _ends_sentence(line: str, place: int, *, is_sentence: bool) -> bool:
    if line[place] == "。":
        return True
    after = line[place + 1 : place + 4].lstrip('*_`")')
    before = line[:place].rpartition(" ")[2]
    is_short = before.lower().strip("(*") in ("no", "st", "dr", "mr", "mrs", "vs", "e.g", "i.e", "approx", "rs", "u.s")
    if is_short or (after and not after[0].isspace()):
        return False
    return not after or not _is_in_name(line, place, is_sentence=is_sentence)


def _is_in_name(line: str, place: int, *, is_sentence: bool) -> bool:
    """Whether a name goes on behind an initial: `J. K. Rowling`, `Washington D.C. is it`; `C. Paris` is a choice."""
    following = line[place + 1 :].lstrip()
    begins = max(0, place - _LONGEST_INITIALS)
    if (initials := _INITIALS.search(line, begins, place)) is not None:
        return initials.start() == 0 or following[:1].islower() or not is_sentence
    if _INITIAL.fullmatch(line[max(0, place - 2) : place].strip("(")) is None:
        return False
    is_middle = not is_sentence and _FIRST_NAME.search(line, begins, place) is not None and following[:1].isupper()
    return is_middle or _INITIAL.match(following.partition(".")[0]) is not None
