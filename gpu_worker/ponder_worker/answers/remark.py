"""What a model writes around its answer: `about`, a reason, a remark in brackets, the marks that end its turn."""

from __future__ import annotations

import re

_ADVERBS = r"approximately|roughly|simply|clearly|therefore|thus|hence|indeed|equal to|given by|obviously"
_FILLERS = rf"{_ADVERBS}|about|around|exactly|just|then|again|now|still|also"
_VALUE = r"[-+−$\\(\[{*.\d½¼¾€£¥]|[b-zB-HJ-Z](?![^\W\d_]|')"
_LEADING = re.compile(
    rf"(?:{_ADVERBS})(?![^\W_])[ :,]{{0,3}}|(?i:option|choice)(?= )[ :,]{{0,3}}|[:=≈~][ ]?|\\approx ?"
    rf"|(?i:{_FILLERS})[ :,]{{1,3}}(?={_VALUE}|(?i:{_FILLERS})[ :,])"
)
"""`About 12` is 12; `About Time` is a title."""
# What a model adds to its answer: a reason, a remark in brackets, the marks that end its turn.
_REASON = "because|since|as|which|where|so that|after|when"
_SENTENCE_GOES_ON = re.compile(rf"\s+\(?(?:{_REASON})\b.*", re.DOTALL)
_TRAILING = re.compile(
    rf"\s+\(?because\b.*|(?<=[\d$}})]|\b[A-Za-z])\s+\(?(?:{_REASON})\b.*"
    rf"|,\s+(?:{_REASON}|so|while|but|wait|hmm|I [a-z]+|we|right)\b.*"
    rf"|\s+\((?:{_REASON}|i\.e|that is|or|rounded|approx|note|see|in|if|with)\b.*"
    r"|(?<=\d)\s+\([A-Za-z]{3}[A-Za-z ,.-]*\)$|;\s+(?:so|therefore|hence|thus|since|because)\b.*|\s+-\s+I\b.*"
    r"|\s+(?:[–—]|--)\s+.*|\s+-\s+(?=[^\W\d_]{3}).*|<\|.*|</.*|<br.*|\s*<(?:eos|s|end)>.*|\s+//\s.*"
    r'|(?<=["\d]),\s*"\w+":.*|(?:です|だ|입니다|이다)$',
    re.DOTALL,
)
# `The largest n is 34` says 34; `The capital is Paris` stays what it is, since no value begins behind the verb.
_COPULA = re.compile(r"(?:\b(?:is|are|equals|be)\b:?|=) *(?=[-+−$\\(\[{]|[€£¥]?\d|\*\*)")
_STARTS_AS_WORDS = re.compile(r"[^\W\d_]{2,}[ ,]|[^\W\d_]+ (?:is|are|equals)\b")
_WRAPPERS = (
    ("$$", "$$"), ("$", "$"), (r"\(", r"\)"), (r"\[", r"\]"), ("**", "**"), ('"', '"'), ("“", "”"), ("`", "`"),
    ("<", ">"),
)  # fmt: skip
_UNITS = "one|two|three|four|five|six|seven|eight|nine|ten|eleven|twelve|thirteen|fourteen|fifteen|sixteen|seventeen"
_TENS = "eighteen|nineteen|twenty|thirty|forty|fifty|sixty|seventy|eighty|ninety|hundred|thousand|million|and|zero"
_SPELLED = re.compile(rf"(?i:(?:{_UNITS}|{_TENS})(?:[- ](?:{_UNITS}|{_TENS})){{0,9}}) \(([-+]?[0-9][0-9.,]*)\)")
"""`twelve (12)`"""
_EXCLAIMED = re.compile(r"(?<=\d)!+(?:\s+[A-Z].*)?$")
_BOLD = re.compile(r"(?<![\w)])\*\*|\*\*(?![\w(])")
_ENDS = " \t\r\n.,;:*_`。✓✔✅"


def without_remarks(line: str, *, is_sentence: bool) -> str:
    """The answer in what stands behind a label, or behind the verb of a sentence that announces it."""
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


def unwrapped(line: str) -> str:
    """Without quotes, Markdown and delimiters of formulas that stand around all of it."""
    for opening, closing in _WRAPPERS:
        inner = line[len(opening) : -len(closing)]
        is_one = not _num_bare(inner, opening) and not _num_bare(inner, closing)
        if line.startswith(opening) and line.endswith(closing) and inner and is_one:
            line = inner.strip().rstrip(".,;").strip()
    return line
