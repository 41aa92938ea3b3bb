r"""Reads the content of boxes: `\boxed{…}`, `\fbox{…}`, `\boxed 7`."""

from __future__ import annotations

import re
from dataclasses import dataclass

from ponder_worker.answers.numeral import read_numeral
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
_WORD = re.compile(r"[A-Za-z]+")
_NEW_THOUGHT = frozenset((
    "is", "are", "so", "then", "thus", "hence", "therefore", "answer", "final", "but", "now", "since", "because",
    "check", "verify", "wait", "which", "gives", "get",
))  # fmt: skip
_MOST_WORDS = 5


@dataclass(frozen=True, slots=True)
class Box:
    start: int
    end: int
    content: str


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
    words = [word.lower() for word in _WORD.findall(between)]
    has_new_thought = any(word in _NEW_THOUGHT for word in words) or ". " in between or "\n" in between
    return _CONNECTED.search(between) is not None and len(words) <= _MOST_WORDS and not has_new_thought
