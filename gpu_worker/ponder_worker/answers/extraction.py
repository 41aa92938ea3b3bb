"""Finds the answer in a text."""

from __future__ import annotations

import re

from ponder_worker.answers.mark import marked

THINKING = "<think>"
"""A text that begins with this and does not close it is a thought that was cut off."""
_CLOSE = "</think>"
_FRACTIONS = "¼½¾⅐-⅞"
_RAISED = r"(?:\^\{?[-−]?\d{1,5}\}?|[⁻⁰¹²³⁴-⁹]{1,6})"
_SIGN_WORDS = (
    r"\b(?i:minus|negative|not|at least|at most|up to|(?:more|less|fewer|greater|smaller) than|half of|twice|double"
    r"|triple)"
)
_CHANGED = (
    r"(?i: ?(?:hal(?:f|ves)|thirds?|quarters?|fifths?|tenths?|hundredths?|squared|cubed|factorial|dozens?|pairs?)\b"
    r"| and (?:a|one) (?:half|third|quarter)\b|\+)"
)
_NUMBER = re.compile(
    # Skips the power in `x^10` and the minutes of a time.
    rf"(?:{_SIGN_WORDS} )?(?<![\^\d])(?<!\^[-−{{])(?<!\d:)[-+−]?(?:\\?\$|[€£¥])?(?:"
    r"(?:\d{1,6} ?)?\\[dt]?frac\{\d{1,20}\}\{\d{1,20}\}"
    r"|\d{1,3}(?:\.\d{3}){1,6},\d+"
    r"|(?:\d{1,3}(?:[ \u00a0\u202f'’]\d{3}){1,6}(?!\d)|\d+(?:,\d+)*)(?:\.\d+)?"
    rf"(?:[eE][-+]?\d{{1,4}}(?!\w|\.\d)| \d{{1,6}}/\d+|/\d+|(?::\d\d){{1,2}}(?!\d)| ?[{_FRACTIONS}]"
    rf"| ?(?:[×x*]|\\times|\\cdot) ?10{_RAISED}|{_RAISED}"
    r"| (?i:dozen|hundred|thousand|million|billion|trillion)\b)?"
    rf"|[{_FRACTIONS}]|\.\d+)(?:\\?%|°)?(?:{_CHANGED})?"
)
"""A number as `read_numeral` reads it, with the words and signs right beside it that change its value.

Everything but runs of digits has a bounded length.
"""
_OPERAND = re.compile(r"(?:(?:[\d}%] ?|\))(?:[-+*/×x÷−]|\\times|\\cdot|\\div) ?|\d(?:\*\*|['’]))\Z")
_OPERATOR = re.compile(r" ?(?:[-+/×÷=−]|\*{1,2}(?=[\d(])|\*(?!\*)|\\times|\\cdot|\\div) ?(?:[\d(\\$]|\Z)")
_LONGEST_OPERATOR = 10
_FORMULA_ENDS = (("$$", "$$"), ("$", "$"), (r"\(", r"\)"), (r"\[", r"\]"))
_TEXT = re.compile(r"\\(?:text|mbox)[a-z]{0,2} ?\{[^{}]*\}")
_PROSE = re.compile(r"(?<![\\A-Za-z{])[A-Za-z]{3,} [A-Za-z]{2,}")
_INTRODUCED = re.compile(r"[^\W\d_]{2,} ?: |[^\W\d_]{3,}:(?=[-+$\d])|[^\W\d_]{2,} (?=\d+ ?[-+*×÷=]|\*\*)")
"""Words that introduce a value: `Total: 5`, `So 5 - 3 = 2`."""
_ARITHMETIC = re.compile(r"[\d)] ?[-+*=×÷]")
"""A step of a calculation. It is no answer: `17 - 6` may be all that was written when the budget ended."""
_DENIED = re.compile(
    r"\b(?i:(?:answer|problem|question) (?:can(?:not| not|['’]t)|could not) be (?:determined|answered|found|computed)"
    r"|(?:can(?:not| not|['’]t)|unable to|impossible to) (?:determine|find|compute|give) (?:the|an|its) answer)"
    r"(?=[.,;!\n]|\Z| from (?:the|this|that)\b)"
)
"""A sentence that says that there is no answer, so that a number near it is none."""
_LONGEST_FORMULA = 1_000
_LONGEST_ANSWER = 60


def extract(text: str) -> str | None:
    r"""Returns the marked answer, else the text itself if it is all answer, else its last formula or number.

    The last `\boxed{}` comes before the last of `#### N`, `Answer: N`, `The answer is N` and headings. A text such as
    `Paris` is all answer. A finished thought is ignored. A thought that was cut off has only the answer that it marks.
    """
    said = after_thought(text)
    if said is None:
        return marked(text)
    found = marked(said)
    return found if found is not None else _last(said)


def after_thought(text: str) -> str | None:
    """Returns the text behind its thought, or None if it is nothing but a thought that was cut off."""
    said = text.rpartition(_CLOSE)[2]
    return None if said.lstrip().startswith(THINKING) else said


def _last(text: str) -> str | None:
    stripped = text.strip()
    if _is_bare(stripped):
        return stripped
    if _DENIED.search(text):
        return None
    formula = max((_last_formula(text, *ends) for ends in _FORMULA_ENDS), default=(-1, ""))
    number = _last_number(text)
    if formula[0] < 0 or ((number[0] > formula[0] or len(formula[1]) == 1) and number[0] >= 0):
        return number[1] if number[0] >= 0 else None
    return formula[1]


def _is_bare(text: str) -> bool:
    """Returns whether a text is all answer: a word or two, a formula, a list."""
    if not text or len(text) > _LONGEST_ANSWER or "\n" in text or r"\boxed" in text or _INTRODUCED.match(text):
        return False
    if _ARITHMETIC.search(text) and not any(map(str.isalpha, text)):
        return False
    words = re.findall(r"(?<![\\A-Za-z])[^\W\d_]{2,}", text)
    has_value = any(map(str.isnumeric, text)) or "$" in text or "\\" in text
    return len(words) <= 2 if not has_value else len(words) <= 1 and not text.endswith(".")


def _last_number(text: str) -> tuple[int, str]:
    """Returns where the last number ends, and the number; (-1, "") if it is an operand of a calculation."""
    last = max(_NUMBER.finditer(text), key=re.Match.end, default=None)
    if last is None or _OPERATOR.match(text, last.end()):
        return -1, ""
    start = last.start() + last[0].startswith(("-", "+", "−"))
    if _OPERAND.search(text, max(0, start - _LONGEST_OPERATOR), start):
        return -1, ""
    is_formula = last[0].startswith("$") and text[last.end() : last.end() + 1] == "$"
    return last.end(), last[0].lstrip("$") if is_formula else last[0]


def _last_formula(text: str, opening: str, closing: str) -> tuple[int, str]:
    end = text.rfind(closing)
    start = text.rfind(opening, max(0, end - _LONGEST_FORMULA), end) if end > 0 else -1
    if start < 0:
        return -1, ""
    content = text[start + len(opening) : end].strip()
    after = text[end + len(closing) : end + len(closing) + 1]
    if not content.strip("$ ") or _PROSE.search(_TEXT.sub("", content)) or (opening == "$" and after.isdigit()):
        return -1, ""
    return end + len(closing), content.strip("$")
