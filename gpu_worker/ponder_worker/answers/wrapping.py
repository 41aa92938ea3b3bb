r"""Removes what is put around an answer: quotes, Markdown, delimiters of formulas, and `\text{…}` around words.

In plain writing every font is `\text{…}`.
"""

from __future__ import annotations

import re

SET_TEXT = r"\\text ?\{[^{}]*\}"
"""A piece of a pattern, for text that contains no braces."""
_SET_TEXT = re.compile(r"\\text ?\{ ?([^{}]*?) ?\}")
_WRAPPERS = (
    ("$$", "$$"), ("$", "$"), (r"\(", r"\)"), (r"\[", r"\]"), ("**", "**"), ('"', '"'), ("“", "”"), ("`", "`"),
    ("<", ">"),
)  # fmt: skip
_GLUED = re.compile(r"(\\[A-Za-z]+)(?=\\text ?\{)")


def without_text(text: str) -> str:
    r"""Removes words set as text: `5` for `5\text{ cm}`."""
    return _SET_TEXT.sub("", text) if r"\text" in text else text


def unset(text: str, around: str = "") -> str:
    r"""Sets words as formulas: `5cm` for `5\text{ cm}`, and `\mu m` for `\mu\text{m}`. Puts `around` on both sides."""
    return _SET_TEXT.sub(rf"{around}\1{around}", _GLUED.sub(r"\1 ", text)) if r"\text" in text else text


def whole_text(text: str) -> str | None:
    r"""Returns the words of a text that is set as text as a whole, `a b` for `\text{a b}`, or None."""
    found = _SET_TEXT.fullmatch(text)
    return found[1] if found else None


def num_bare(line: str, mark: str) -> int:
    return line.count(mark) - line.count("\\" + mark)


def unwrapped(line: str) -> str:
    """Removes quotes, Markdown and delimiters of formulas that enclose all of a line."""
    for opening, closing in _WRAPPERS:
        inner = line[len(opening) : -len(closing)]
        is_one = not num_bare(inner, opening) and not num_bare(inner, closing)
        if line.startswith(opening) and line.endswith(closing) and inner and is_one:
            line = inner.strip().rstrip(".,;").strip()
    return line
