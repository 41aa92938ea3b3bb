"""The verifiers that judge answers. One that sees the reference only reports, unless the job says `oracle: true`."""

from __future__ import annotations

import re
import unicodedata
from typing import Annotated, Literal

from pydantic import Field, TypeAdapter, model_validator
from pydantic_core import PydanticCustomError

from ponder.domain.storable import JsonObject
from ponder.domain.strategy import Spec

_LETTER = re.compile(
    r"(?<![A-Za-z'])[A-J](?![A-Za-z']| [a-z])"
    r"|(?::|#|\{|\bis\b)[\s({\[*]{0,4}[a-j](?![A-Za-z']| [a-z])"
    r"|\A\W{0,2}[a-j]\W{0,2}\Z"
)
"""A lone capital that is not an article or pronoun before a word, or a small letter after a mark or by itself."""
_HOLLOW = re.compile(r"\\(?:boxed|fbox|framebox)(?![A-Za-z])\s*(?:\{\s*\}?)?|\$\s*\$|#{2,}")
"""Marks around an answer. Removing them leaves the answer."""
_SUBSCRIPT = re.compile(r"_\{?\w+")
_EMPTY_COLLECTION = re.compile(r"\\\{\s*\\\}|\[\s*\]")


class Exact(Spec):
    """The extracted answer equals the extracted reference, character by character, except for outer spaces."""

    name: Literal["exact"] = "exact"


class Number(Spec):
    """The answer and the reference are equal numbers. Separators, currency, units and percent signs are ignored."""

    name: Literal["number"] = "number"


class Math(Spec):
    """The answer and the reference are mathematically equal, as read by latex2sympy, the parser of Math-Verify.

    `order`: the items of a list may come in any order (`free`) or must have the reference's (`kept`); those of a tuple
    always must. `units`: one side may omit its unit (`optional`), units may differ (`ignored`), or the answer must name
    the reference's (`required`). `percent`: 28% is 28 (`number`), 0.28 (`fraction`), or either.
    """

    name: Literal["math"] = "math"
    order: Literal["free", "kept"] = "free"
    units: Literal["optional", "ignored", "required"] = "optional"
    percent: Literal["either", "number", "fraction"] = "either"


class Choice(Spec):
    """The answer chooses the same letter (A to J) as the reference."""

    name: Literal["choice"] = "choice"


class JsonSchema(Spec):
    """The answer is JSON that the schema accepts. Needs no reference. `verifier_check` checks the schema."""

    model_config = Spec.model_config | {"populate_by_name": True}

    name: Literal["json_schema"] = "json_schema"
    json_schema: JsonObject = Field(alias="schema")


class Regex(Spec):
    """A regular expression of Python's matches a part of the answer, or all of it.

    `verifier_check` checks the pattern, because compiling it may take long.
    """

    name: Literal["regex"] = "regex"
    pattern: str = Field(min_length=1)
    match: Literal["part", "full"] = "part"
    ignore_case: bool = False


class Contains(Spec):
    """The answer contains all of some texts, or any of them."""

    name: Literal["contains"] = "contains"
    texts: list[Annotated[str, Field(min_length=1, max_length=10_000)]] = Field(min_length=1, max_length=100)
    need: Literal["all", "any"] = "all"
    ignore_case: bool = False


class Exchange(Spec):
    """One run of a program: it reads `stdin` and must write `stdout`. Trailing spaces are ignored."""

    stdin: str = Field(default="", max_length=1_000_000)
    stdout: str = Field(max_length=1_000_000)


class PythonTests(Spec):
    """The answer is a Python program that passes tests in a sandbox. The operator must allow it.

    `tests` is Python, such as asserts, that runs after the program and raises if it is wrong. `cases` are runs of the
    program. With neither, the reference holds one of the two: Python, or a list of cases as JSON.
    """

    name: Literal["python_tests"] = "python_tests"
    tests: str | None = Field(default=None, min_length=1, max_length=1_000_000)
    cases: list[Exchange] = Field(default=[], max_length=200)

    @model_validator(mode="after")
    def _is_one_of_them(self) -> PythonTests:
        if self.tests is not None and self.cases:
            raise PydanticCustomError("python_tests", "give `tests` or `cases`, not both")
        return self


Verifier = Annotated[
    Exact | Number | Math | Choice | JsonSchema | Regex | Contains | PythonTests, Field(discriminator="name")
]
VERIFIER: TypeAdapter[Exact | Number | Math | Choice | JsonSchema | Regex | Contains | PythonTests] = TypeAdapter(
    Verifier
)
VERIFIER_NAMES = ("exact", "number", "math", "choice", "json_schema", "regex", "contains", "python_tests")


def sees_reference(verifier: Verifier) -> bool:
    """Returns whether a verifier judges by the reference. Its verdict would reveal the reference to a search."""
    match verifier:
        case JsonSchema() | Regex() | Contains():
            return False
        case PythonTests():
            return verifier.tests is None and not verifier.cases
    return True


def why_unreadable(verifier: Verifier, reference: str) -> str | None:
    """Returns why answers cannot be compared with a reference, or None if a worker may be able to read it."""
    left = _HOLLOW.sub("", reference).strip()
    match verifier:
        case Exact() | Math() if not left:
            return "it is empty" if not reference.strip() else "there is nothing in its mark"
        case Math() if not any(map(_has_meaning, left)) and _EMPTY_COLLECTION.search(left) is None:
            return "it has no letters, digits or mathematical signs (exact compares any text)"
        case Number() if not any(map(str.isnumeric, _SUBSCRIPT.sub("", reference))):
            return "it contains no number (exact and math compare words, too)"
        case Choice() if _LETTER.search(reference) is None:
            return "it has no lone capital from A to J (exact compares whole texts)"
    return None


def _has_meaning(character: str) -> bool:
    """Returns whether Unicode calls a character a letter, number or symbol. `$` only marks formulas."""
    return character != "$" and unicodedata.category(character)[0] in "LNS"


def why_not_asked(verifier: Verifier | None, *, has_reference: bool, oracle: bool) -> str | None:
    """Returns why no search may ask this verifier about a candidate, and the remedy, or None if it may."""
    if verifier is None:
        return "there is no verifier: name one, such as json_schema, regex or contains, which need no reference"
    if not sees_reference(verifier):
        return None
    if not oracle:
        return (
            f"{verifier.name} sees the reference and only reports: name a verifier that needs no reference, or say "
            "oracle: true, which every report then shows"
        )
    return None if has_reference else f"{verifier.name} judges by a reference, and there is none: give one"
