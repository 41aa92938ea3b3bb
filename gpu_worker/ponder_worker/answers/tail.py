"""What stands behind a label, without what follows the answer there."""

from __future__ import annotations

import re

_LONGEST = 2_000
"""Characters of a line that are looked at."""
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
_LEADING = re.compile(
    r"(?i:approximately|about|around|roughly|exactly|simply|just|clearly|therefore|thus|hence|then|indeed|again|now|still"
    r"|also|equal to|given by|obviously|option(?= )|choice(?= ))(?![^\W_])[ :,]{0,3}|[:=≈~][ ]?|\\approx ?"
)
# What a model adds to its answer: a reason, a remark in brackets, the marks that end its turn.
_REASON = "because|since|as|which|where|so that|after|when"
_TRAILING = re.compile(
    rf"\s+\(?(?:{_REASON})\b.*|,\s+(?:{_REASON}|so|while|but|wait|hmm|I [a-z]+|we|right)\b.*"
    rf"|\s+\((?:{_REASON}|i\.e|that is|or|rounded|approx|note|see|in|if|with)\b.*"
    r"|(?<=\d)\s+\([A-Za-z]{3}[A-Za-z ,.-]*\)$|;\s+(?:so|therefore|hence|thus|since|because)\b.*|\s+-\s+I\b.*"
    r"|\s+(?:[–—]|--)\s+.*|\s+-\s+(?=[^\W\d_]{3}).*|<\|.*|</.*|<br.*|\s*<(?:eos|s|end)>.*",
    re.DOTALL,
)
# `The largest n is 34` says 34; `The capital is Paris` stays what it is, since no value begins behind the verb.
_COPULA = re.compile(r"(?:\b(?:is|are|equals|be)\b:?|=) *(?=[-+−$\\(\[{]|[€£¥]?\d|\*\*)")
_STARTS_AS_WORDS = re.compile(r"[^\W\d_]{2,}[ ,]|[^\W\d_]+ (?:is|are|equals)\b")
_WRAPPERS = (("$$", "$$"), ("$", "$"), (r"\(", r"\)"), (r"\[", r"\]"), ("**", "**"), ('"', '"'), ("“", "”"))
_BOLD = re.compile(r"(?<![\w)])\*\*|\*\*(?![\w(])")
_BULLET = re.compile(r"(?:[-•]|>{1,3}) (?=\S)[*_`]{0,3}")
_ENDS = " \t\r\n.,;:*_`。✓✔✅"


def read_tail(text: str, place: int) -> str | None:
    """The answer that begins at this place of a text, or on the next line that is not empty; None without any."""
    start = _start(text, place)
    for opening, closing in _BLOCKS:
        if text.startswith(opening, start):
            found = _block(text[start + len(opening) : start + _LONGEST], closing)
            if found:
                return found
    return _tidied(read_line(text, place)) or None


def read_line(text: str, place: int) -> str:
    """All of that line; empty where nothing follows."""
    start = _start(text, place)
    return text[start : start + _LONGEST].partition("\n")[0].rstrip()


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


def _tidied(line: str) -> str:
    line = _BOLD.sub("", _first_sentence(line))
    if (said := list(_COPULA.finditer(line))) and _STARTS_AS_WORDS.match(line):
        line = line[said[-1].end() :] if not said[-1][0].startswith("=") else line
    for _ in range(3):
        line = _LEADING.sub("", line, count=1) if _LEADING.match(line) else line
        line = line.strip().lstrip("*_`")
    line = _TRAILING.sub("", line).strip(_ENDS) if line[:1] != "." else _TRAILING.sub("", line).rstrip(_ENDS)
    line = line[:-1] if line.endswith(("$!", ")!", "}!")) else line
    return _unwrapped(_balanced(line))


def _first_sentence(line: str) -> str:
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
        elif character in ".。?" and not in_formula and _ends_sentence(line, place):
            return line[:place]
        place += 1
    return line


def _ends_sentence(line: str, place: int) -> bool:
    if line[place] == "。":
        return True
    after = line[place + 1 : place + 4].lstrip('*_`")')
    before = line[:place].rpartition(" ")[2]
    is_short = before.lower().strip("(*") in ("no", "st", "dr", "mr", "mrs", "vs", "e.g", "i.e", "approx", "rs", "u.s")
    return (not after or after[0].isspace()) and not is_short


def _balanced(line: str) -> str:
    """Without a closing bracket or mark at the end that nothing has opened."""
    has_more = sum(map(line.count, ")]}")) > sum(map(line.count, "([{"))
    if has_more and line.endswith((")", "]", "}")) and line[-2:-1] != "\\":
        line = line[:-1].rstrip(_ENDS)
    for mark in ("$", '"', "|"):
        if line.endswith(mark) and line[-2:-1] != "\\" and _num_bare(line, mark) % 2:
            line = line[:-1].rstrip(_ENDS)
    return line


def _num_bare(line: str, mark: str) -> int:
    return line.count(mark) - line.count("\\" + mark)


def _unwrapped(line: str) -> str:
    for opening, closing in _WRAPPERS:
        inner = line[len(opening) : -len(closing)]
        is_one = not _num_bare(inner, opening) and not _num_bare(inner, closing)
        if line.startswith(opening) and line.endswith(closing) and inner and is_one:
            line = inner.strip().rstrip(".,;").strip()
    return line
