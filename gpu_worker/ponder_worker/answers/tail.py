"""Reads the answer behind a label, without the remarks around it: `about`, a reason, the marks that end a turn."""

from __future__ import annotations

import re

from ponder_worker.answers.wrapping import num_bare, unwrapped

_LONGEST = 2_000
"""Characters of a line that are read."""
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
_ADVERBS = r"approximately|roughly|simply|clearly|therefore|thus|hence|indeed|equal to|given by|obviously"
_FILLERS = rf"{_ADVERBS}|about|around|exactly|just|then|again|now|still|also"
_VALUE = r"[-+−$\\(\[{*.\d½¼¾€£¥]|[b-zB-HJ-Z](?![^\W\d_]|')"
_LEADING = re.compile(
    rf"(?:{_ADVERBS})(?![^\W_])[ :,]{{0,3}}|(?i:option|choice)(?= )[ :,]{{0,3}}|[:=≈~][ ]?|\\approx ?"
    rf"|(?i:{_FILLERS})[ :,]{{1,3}}(?={_VALUE}|(?i:{_FILLERS})[ :,])"
)
"""Words before a value: `About 12` is 12, but `About Time` is a title."""
_REASON = "because|since|as|which|where|so that|after|when"
_SENTENCE_GOES_ON = re.compile(rf"\s+\(?(?:{_REASON})\b.*", re.DOTALL)
_TRAILING = re.compile(
    rf"\s+\(?because\b.*|(?<=[\d$}})]|\b[A-Za-z])\s+\(?(?:{_REASON})\b.*"
    rf"|,\s+(?:{_REASON}|so|while|but|wait|hmm|I [a-z]+|we|right)\b.*"
    rf"|\s+\((?:{_REASON}|i\.e|that is|or|rounded|approx|note|see|in|if|with)\b.*"
    r"|(?<=\d)\s+\([A-Za-z]{3}[A-Za-z ,.-]*\)$|;\s+(?:so|therefore|hence|thus|since|because)\b.*|\s+-\s+I\b.*"
    r"|\s+(?:[–—]|--)\s+.*|\s+-\s+(?=[^\W\d_]{3}).*|<\|.*|</.*|<br.*|\s*<(?:eos|s|end)>.*|\s+//\s.*|\s*\[/.*"
    r'|(?<=["\d]),\s*"\w+":.*|(?:です|だ|입니다|이다)$',
    re.DOTALL,
)
# `The largest n is 34` says 34. `The capital is Paris` is kept, because no value begins behind the verb.
_COPULA = re.compile(r"(?:\b(?:is|are|equals|be)\b:?|=) *(?=[-+−$\\(\[{]|[€£¥]?\d|\*\*)")
_STARTS_AS_WORDS = re.compile(r"[^\W\d_]{2,}[ ,]|[^\W\d_]+ (?:is|are|equals)\b")
_UNITS = "one|two|three|four|five|six|seven|eight|nine|ten|eleven|twelve|thirteen|fourteen|fifteen|sixteen|seventeen"
_TENS = "eighteen|nineteen|twenty|thirty|forty|fifty|sixty|seventy|eighty|ninety|hundred|thousand|million|and|zero"
_SPELLED = re.compile(rf"(?i:(?:{_UNITS}|{_TENS})(?:[- ](?:{_UNITS}|{_TENS})){{0,9}}) \(([-+]?[0-9][0-9.,]*)\)")
"""A number in words and in digits: `twelve (12)`."""
_EXCLAIMED = re.compile(r"(?<=\d)!+(?:\s+[A-Z].*)?$")
_BOLD = re.compile(r"(?<![\w)])\*\*|\*\*(?![\w(])")
_ENDS = " \t\r\n.,;:*_`。✓✔✅"


def read_tail(text: str, place: int) -> str | None:
    """Returns the answer that begins at a place of a text or on the next line that is not empty, or None."""
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
    """Returns all of that line, which is empty if nothing follows."""
    start = _start(text, place)
    return text[start : start + _LONGEST].partition("\n")[0].rstrip()


def _is_sentence(text: str, place: int) -> bool:
    """Returns whether a sentence leads to the place, as in `The answer is 5!`, and not a label such as `Answer:`."""
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
    """Returns the text up to the end of the first sentence. A full stop within a formula ends none."""
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
    """Returns whether a name goes on behind an initial: `J. K. Rowling`, `Washington D.C. is`, but not `C. Paris`."""
    following = line[place + 1 :].lstrip()
    begins = max(0, place - _LONGEST_INITIALS)
    if (initials := _INITIALS.search(line, begins, place)) is not None:
        return initials.start() == 0 or following[:1].islower() or not is_sentence
    if _INITIAL.fullmatch(line[max(0, place - 2) : place].strip("(")) is None:
        return False
    is_middle = not is_sentence and _FIRST_NAME.search(line, begins, place) is not None and following[:1].isupper()
    return is_middle or _INITIAL.match(following.partition(".")[0]) is not None


def without_remarks(line: str, *, is_sentence: bool) -> str:
    """Returns the answer in a text that follows a label or, in a sentence, the verb that announces it."""
    line = _BOLD.sub("", line)
    if (said := list(_COPULA.finditer(line))) and _STARTS_AS_WORDS.match(line):
        line = line[said[-1].end() :] if not said[-1][0].startswith("=") else line
    for _ in range(3):
        line = _LEADING.sub("", line, count=1) if _LEADING.match(line) else line
        line = line.strip().lstrip("*_`")
    line = _EXCLAIMED.sub("", _SENTENCE_GOES_ON.sub("", line)) if is_sentence else line
    line = _TRAILING.sub("", line).rstrip(_ENDS)
    line = line.lstrip(_ENDS) if line[:1] != "." else line
    line = line[:-1] if line.endswith(("$!", ")!", "}!")) else line
    line = unwrapped(_balanced(line))
    return spelled[1] if (spelled := _SPELLED.fullmatch(line)) else line


def _balanced(line: str) -> str:
    """Removes a closing bracket or mark at the end that nothing has opened."""
    has_more = sum(map(line.count, ")]}")) > sum(map(line.count, "([{"))
    if has_more and line.endswith((")", "]", "}")) and line[-2:-1] != "\\":
        line = line[:-1].rstrip(_ENDS)
    for mark in ("$", '"', "|"):
        if line.endswith(mark) and line[-2:-1] != "\\" and num_bare(line, mark) % 2:
            line = line[:-1].rstrip(_ENDS)
    return line
