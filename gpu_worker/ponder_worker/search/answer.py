"""The answer in a text, and when two answers are the same one."""

from __future__ import annotations

import re
from decimal import Context, Decimal, InvalidOperation

_HASHES = re.compile(r"####[ \t]*(\S[^\n]*)")
# Bounded runs: a text of nothing but blanks after the word would take hours otherwise.
_LABEL = re.compile(r"\banswer\b[ \t*]{0,8}(?::|\bis\b)[ \t*]{0,8}([^\s*][^\n]*)", re.IGNORECASE)
_BRACE = re.compile(r"\\boxed\{|[{}]")
_NUMBER = re.compile(r"[-+]?\d{1,3}(?:,\d{3})+(?:\.\d+)?|[-+]?\d+(?:\.\d+)?(?:/\d+)?")
_WRAPPERS = (("$$", "$$"), ("$", "$"), (r"\(", r"\)"), (r"\[", r"\]"), ("**", "**"))
_NOISE = {r"\!": "", r"\,": "", r"\;": "", r"\left": "", r"\right": "", r"\dfrac": r"\frac", r"\tfrac": r"\frac"}


def extract(text: str) -> str | None:
    """What the text says is its answer, else its last number, else None.

    In this order: the last boxed one, `#### N`, the last `Answer: N`. What stands before the end of a thought is not
    looked at.
    """
    text = text.rpartition("</think>")[2]
    marked = _marked(text)
    if marked is not None:
        return marked
    numbers: list[str] = _NUMBER.findall(text)
    return numbers[-1] if numbers else None


def unfenced(text: str) -> str:
    """The whole text, out of the code fence that models like to put around it."""
    text = text.rpartition("</think>")[2].strip()
    fenced = re.fullmatch(r"```[a-zA-Z]*\n(.*?)\n?```", text, re.DOTALL)
    return fenced.group(1) if fenced else text


def of_reference(reference: str) -> str:
    """The answer in a reference solution; a reference without a mark is the answer itself."""
    marked = _marked(reference)
    return reference.strip() if marked is None else marked


def canonical(answer: str) -> str:
    """Equal for answers that differ in writing only: `1,000.0` and `$1000$`, `\\dfrac12` and `\\frac12`."""
    text = _unwrap(answer.strip().rstrip("."))
    for old, new in _NOISE.items():
        text = text.replace(old, new)
    number = as_number(text)
    if number is not None:
        return str(number.normalize(Context(prec=len(text)))) if number else "0"
    return " ".join(text.split())


def as_number(text: str) -> Decimal | None:
    """The number that the text is, thousands separators, currency and percent signs ignored; None if it is none."""
    text = text.replace(r"\$", "").replace(r"\%", "").replace("{,}", ",").strip().strip("$€£%").strip()
    if re.fullmatch(r"[-+]?\d{1,3}(,\d{3})+(\.\d*)?", text):
        text = text.replace(",", "")
    if not re.fullmatch(r"[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d{1,3})?", text):
        return None
    try:
        return Decimal(text)
    except InvalidOperation:
        return None


def _marked(text: str) -> str | None:
    boxed = _last_boxed(text)
    if boxed is not None:
        return boxed
    for pattern in (_HASHES, _LABEL):
        found: list[str] = pattern.findall(text)
        if found:
            return _unwrap(found[-1].strip().rstrip(".").strip())
    return None


def _last_boxed(text: str) -> str | None:
    r"""The content of the last `\boxed{}` whose braces balance."""
    last, content = -1, None
    opened: list[re.Match[str]] = []
    for brace in _BRACE.finditer(text):
        if brace.group() != "}":
            opened.append(brace)
        elif opened:
            opening = opened.pop()
            if len(opening.group()) > 1 and opening.start() > last:
                last, content = opening.start(), text[opening.end() : brace.start()].strip()
    return content


def _unwrap(text: str) -> str:
    for opening, closing in _WRAPPERS:
        if text.startswith(opening) and text.endswith(closing) and len(text) > len(opening) + len(closing):
            return text[len(opening) : -len(closing)].strip()
    return text
