r"""Words that are set as text within a formula. In plain writing every font is `\text{…}`."""

from __future__ import annotations

import re

SET_TEXT = r"\\text ?\{[^{}]*\}"
"""A piece of a pattern. What it matches holds no braces of its own."""
_SET_TEXT = re.compile(r"\\text ?\{ ?([^{}]*?) ?\}")
_WRAPPERS = (
    ("$$", "$$"), ("$", "$"), (r"\(", r"\)"), (r"\[", r"\]"), ("**", "**"), ('"', '"'), ("“", "”"), ("`", "`"),
    ("<", ">"),
)  # fmt: skip
_GLUED = re.compile(r"(\\[A-Za-z]+)(?=\\text ?\{)")


def without_text(text: str) -> str:
    r"""`5\text{ cm}` is `5`."""
    return _SET_TEXT.sub("", text) if r"\text" in text else text


def unset(text: str, around: str = "") -> str:
    r"""`5\text{ cm}` is `5cm`, and `\mu\text{m}` stays two words. around: put on both sides of each."""
    return _SET_TEXT.sub(rf"{around}\1{around}", _GLUED.sub(r"\1 ", text)) if r"\text" in text else text


def whole_text(text: str) -> str | None:
    r"""What all of a text is set from: `a b` of `\text{a b}`; None where more stands there."""
    found = _SET_TEXT.fullmatch(text)
    return found[1] if found else None


def num_bare(line: str, mark: str) -> int:
    return line.count(mark) - line.count("\\" + mark)


def unwrapped(line: str) -> str:
    """Without quotes, Markdown and delimiters of formulas that stand around all of it."""
    for opening, closing in _WRAPPERS:
        inner = line[len(opening) : -len(closing)]
        is_one = not num_bare(inner, opening) and not num_bare(inner, closing)
        if line.startswith(opening) and line.endswith(closing) and inner and is_one:
            line = inner.strip().rstrip(".,;").strip()
    return line
