r"""Finds the answer that a text marks: in a box, or behind `Answer: 6`, `The answer is 6`, `#### 6` or a heading."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from ponder_worker.answers.numeral import read_numeral
from ponder_worker.answers.tail import read_line, read_tail
from ponder_worker.answers.unit import read_unit
from ponder_worker.answers.wrapping import SET_TEXT

_NAMES = (r"\boxed", r"\fbox", r"\framebox", "\x08oxed")
_TOKEN = re.compile(r"\\{1,2}(?:boxed|fbox|framebox)(?![A-Za-z])[ \t\n]{0,8}\{?|\x08oxed\{|\\.|[{}]", re.DOTALL)
_BARE = re.compile(r"(?:\\d?frac\{[^{}]*\}\{[^{}]*\}|\\[A-Za-z]+\{[^{}]*\}|[^\s$\\{},;]){1,100}")
_LONGEST_UNIT = 50
_BETWEEN = 70
"""Characters. Boxes that are further apart never hold one answer."""
_CONNECTED = re.compile(r"[,;&]|\b(?:and|or)\b")
_FILLER = re.compile(r"\\(?:text|quad|qquad|\[|\]|\(|\)|[,;! ])|[\s$,;:&{}+*~]|\b(?:and|or)\b")
_MINUS = re.compile(r"(?:^|(?<=[\s$=(]))[-−]\Z")
_UNIT = re.compile(rf"(?:\\[,; ]| )?{SET_TEXT}(?:\^\{{?[23]\}}?)?")
_MORE_ITEMS = re.compile(r"(?:\\?[,;]\s{0,2}-?\d{1,20}(?:\.\d{1,20})?){1,20}(?=\s{0,2}(?:\$|\\[)\]]|\Z))")
"""Numbers behind a box up to the end of its formula, which go on with its list: `\\boxed{4,8},7`."""
_ITEM = re.compile(r"[-.\d]+")
_ANY_WORD = re.compile(r"[A-Za-z]+")
_NEW_THOUGHT = frozenset((
    "is", "are", "so", "then", "thus", "hence", "therefore", "answer", "final", "but", "now", "since", "because",
    "check", "verify", "wait", "which", "gives", "get",
))  # fmt: skip
_MOST_WORDS_BETWEEN = 5

_WINDOW = 120
"""The most characters between the word and the end of its label."""
_BEFORE = 30
"""Characters. Words so far in front of a label may say that the answer is only checked."""
_MOST_WORDS = 100
"""Labels that are tried, from the end. A text that says `answer` more often marks none."""
_WORD = re.compile(
    r"(?i:answer|\bans\b|final[ *_]{1,3}result|\bantwort|\brespuesta|\brisposta|\bresposta|\bréponse|\bответ)"
    r"|答案|答え|答|정답|답"
)
_MARKUP = r"[ \t*_`]{0,4}"
_THEN = r"(?:then|thus|therefore|hence|of course)"
_OF_WHAT = r"(?:to|of|for|in|here|choice|option)\b[^.:!?\n=]{0,80}?"
_IS = (
    r"(?P<is>(?<![^\W\d_])(?i:is|are|was|would be|will be|should be|must be|equals?|ist|lautet|est|es|é|è)(?![^\W\d_])"
    rf"|是|为|為|は|은|는)(?:,? {_THEN},?(?![^\W\d_]))?{_MARKUP}[:：]?"
)
_MARK = r"[:：=|]|->|→|(?<= )[-–—]{1,2} "
_LABEL = re.compile(rf"(?:s|\(s\))?\"?{_MARKUP}(?:{_OF_WHAT})?(?:,? ?{_THEN},?)?{_MARKUP}(?:{_IS}|{_MARK}){_MARKUP}")
_FORMULA = re.compile(r"[ \t*_]{0,4}(?:\$|\\[(\[])")
_BEFORE_TAG = re.compile(r"\[(?i:the |my |final |correct ){0,2}\Z")
_TAG_END = re.compile(r"\](?!\()")
"""The end of a tag, `[ANSWER] 6`, and not of the text of a link."""
_NO_ANSWER = re.compile(
    r"(?i:not|in|on|consistent|correct|incorrect|right|wrong|reasonable|unique|unclear|unknown|below|above|as follows"
    r"|found|obtained|written|expressed|supposed|likely|called|something|what|that|whether|always|never)(?![^\W_])"
)
_CHECKED = re.compile(r"(?i:check|verify|confirm)(?:ing)?(?: (?:the|this|our|my|that the))? \Z")
_HEADING = re.compile(
    r"[ \t]{0,3}(?:#{1,6}[ \t]{0,3})?[*_]{0,3}(?:[0-9]{1,2}[.)] ?)?"
    r"(?i:(?:the |my |our )?(?:final |correct )?answers?|答案|最终答案)[*_ ]{0,4}[:：]?[*_ \t]{0,4}"
)
_LONGEST_HEADING = 40
_HASHES = re.compile(r"[ \t]{0,3}#### ?(?!#)[ \t]{0,8}(?=\S)")
_VALUE = re.compile(r"[-+−]? ?(?:[$€£¥]|\\[$(\[]|[^\W\d_]{0,2}[0-9]|\\[a-z]|[^\W_a-zA-Z])")
_NUMBERED = re.compile(r"[0-9]{1,2}[.):][ \t]{1,4}[*_]{0,2}[^\W\d_]")
_STEP = re.compile(r"[*_]{0,3}(?i:step|part|case|section|solution|conclusion|verification|problem|explanation|note)\b")
_LAST = re.compile(r"[*_]{0,3}A[:：][*_ \t]{0,4}(?=\S)")


@dataclass(frozen=True, slots=True)
class Box:
    start: int
    end: int
    content: str


def marked(text: str) -> str | None:
    """Returns the answer in the last box, else behind the last label."""
    return _marked(text, read_tail)


def marked_line(text: str) -> str | None:
    """Returns the same, but the whole line behind a label."""
    return _marked(text, read_line)


def of_reference(reference: str) -> str:
    """Returns the answer in a reference solution. A reference without a mark is the answer itself."""
    found = marked(reference)
    return reference.strip() if found is None else found


def _marked(text: str, read: Callable[[str, int], str | None]) -> str | None:
    found = boxed(text)
    if found is not None:
        return found
    return next((tail for place in announced(text) if (tail := read(text, place))), None)


def boxed(text: str) -> str | None:
    r"""Returns the content of the last box, and of those right before it: `1, 2` for `\boxed{1} and \boxed{2}`.

    Ignores a box that does not close or that is empty.
    """
    boxes = _boxes(text) if any(name in text for name in _NAMES) else []
    if not boxes:
        return None
    contents = [_with_surroundings(text, boxes[-1])]
    for box, later in zip(boxes[-2::-1], boxes[:0:-1], strict=True):
        if box.content != later.content:
            if not _belong_together(text[box.end : later.start]):
                break
            contents.append(box.content)
        elif later.start - box.end > _BETWEEN:
            break
    return ", ".join(reversed(contents))


def _with_surroundings(text: str, box: Box) -> str:
    """Returns its content with the minus right before it, and with the known unit or the items right behind it."""
    content = box.content
    if _MINUS.search(text, max(0, box.start - 3), box.start) and content[0] not in "-+−":
        content = f"-{content}"
    unit = _UNIT.match(text, box.end, box.end + _LONGEST_UNIT)
    known = read_unit(unit[0].strip()) if unit else None
    if unit and known and known.name and (numeral := read_numeral(content)) and not numeral.unit.is_there:
        content += unit[0]
    more = _MORE_ITEMS.match(text, box.end) if content[-1].isdigit() or content[-1] in ")}" else None
    if more is not None:
        separator = "," if "," in content else ", "  # a blank would join the digits around other commas
        content += "".join(separator + number for number in _ITEM.findall(more[0]))
    return content


def _boxes(text: str) -> list[Box]:
    """Returns the boxes in the order of their beginning, without those that contain others."""
    found: list[Box] = []
    opened: list[tuple[re.Match[str], bool]] = []
    end_of_last = 0
    for token in _TOKEN.finditer(text):
        if token.start() < end_of_last:
            continue
        is_box = "box" in token[0] or token[0].startswith("\x08")
        if token[0] == "{" or (is_box and token[0].endswith("{")):
            opened.append((token, is_box))
        elif is_box and (bare := _BARE.match(text, token.end())):
            found.append(Box(token.start(), bare.end(), bare[0].rstrip(".:!")))
            end_of_last = bare.end()
        elif token[0] == "}" and opened:
            opening, was_box = opened.pop()
            content = text[opening.end() : token.start()].strip() if was_box else ""
            if content and not (found and found[-1].start > opening.start()):
                found.append(Box(opening.start(), token.end(), content))
    return found


def _belong_together(between: str) -> bool:
    """Returns whether the text between two boxes only joins them: nothing, `and`, or a few words such as a unit."""
    if len(between) > _BETWEEN:
        return False
    if not _FILLER.sub("", between):
        return True
    words = [word.lower() for word in _ANY_WORD.findall(between)]
    has_new_thought = any(word in _NEW_THOUGHT for word in words) or ". " in between or "\n" in between
    return _CONNECTED.search(between) is not None and len(words) <= _MOST_WORDS_BETWEEN and not has_new_thought


def announced(text: str) -> Iterator[int]:
    """Yields the places behind labels, the last one first. It is the end of the line if the answer is below."""
    end, is_last, num_words = len(text), True, 0
    while end >= 0 and num_words < _MOST_WORDS:
        start = text.rfind("\n", 0, max(end, 0)) + 1
        if text[start:end].strip():
            words = list(_WORD.finditer(text, start, end))[-_MOST_WORDS:]
            num_words += len(words)
            yield from _in_line(text, start, end, words, is_last=is_last)
            is_last = False
        end = start - 1


def _in_line(text: str, start: int, end: int, words: list[re.Match[str]], *, is_last: bool) -> Iterator[int]:
    if words and end - start <= _LONGEST_HEADING and _HEADING.fullmatch(text, start, end):
        yield end
        return
    for word in reversed(words):
        if _CHECKED.search(text, max(start, word.start() - _BEFORE), word.start()):
            continue
        label = _LABEL.match(text, word.end(), min(end, word.end() + _WINDOW))
        if label is None and _FORMULA.match(text, word.end()) and not text[start : word.start()].strip("#*_ \t"):
            yield word.end()
        if label is None and _is_tag(text, start, word):
            yield word.end() + 1
        if label and not (label["is"] and _NO_ANSWER.match(text, label.end(), end)):
            yield label.end()
    if (hashes := _HASHES.match(text, start, end)) and _is_value(text, hashes.end(), end, is_last=is_last):
        yield hashes.end()
    if is_last and (last := _LAST.match(text, start, end)):
        yield last.end()


def _is_tag(text: str, start: int, word: re.Match[str]) -> bool:
    """Returns whether a word is that of a tag such as `[ANSWER]`."""
    before = _BEFORE_TAG.search(text, max(start, word.start() - _BEFORE), word.start())
    return before is not None and _TAG_END.match(text, word.end()) is not None


def _is_value(text: str, start: int, end: int, *, is_last: bool) -> bool:
    """Returns whether four hashes mark an answer, as in GSM8K, and no heading, which has more words and text below."""
    if _STEP.match(text, start, end):
        return False
    if is_last:
        return True
    return _VALUE.match(text, start, end) is not None and not _NUMBERED.match(text, start, end)
