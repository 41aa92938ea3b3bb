"""How an answer is judged right. Verifiers that see the reference only report, unless the job says `oracle: true`."""

from __future__ import annotations

import re
import unicodedata
from typing import Annotated, Any, Literal

from pydantic import Field, TypeAdapter, model_validator
from pydantic_core import PydanticCustomError

from ponder.domain.strategy import Spec

_LETTER = re.compile(
    r"(?<![A-Za-z'])[A-J](?![A-Za-z']| [a-z])"
    r"|(?::|#|\{|\bis\b)[\s({\[*]{0,4}[a-j](?![A-Za-z']| [a-z])"
    r"|\A\W{0,2}[a-j]\W{0,2}\Z"
)
"""A lone capital, but no article or pronoun before a word; a small letter only behind a mark or as all there is."""
_HOLLOW = re.compile(r"\\(?:boxed|fbox|framebox)(?![A-Za-z])\s*(?:\{\s*\}?)?|\$\s*\$|#{2,}")
"""Marks of an answer; of those around one the answer is left."""
_SUBSCRIPT = re.compile(r"_\{?\w+")
_EMPTY_COLLECTION = re.compile(r"\\\{\s*\\\}|\[\s*\]")


class Exact(Spec):
    """The extracted answer equals the extracted reference, character by character, outer spaces apart."""

    name: Literal["exact"] = "exact"


class Number(Spec):
    """Both are numbers and equal, exactly; separators, currency, units and percent signs do not count."""

    name: Literal["number"] = "number"


class Math(Spec):
    """Mathematically equal, read by latex2sympy, the parser of Math-Verify.

    order: `free`, or `kept` where the items of a list must come in the reference's order (those of a tuple always do).
    units: `optional`, one side may leave its unit out; `ignored`, they may differ as well; `required`, an answer must
    name the reference's. percent: 28% is 28 (`number`), 0.28 (`fraction`), or either of them.
    """

    name: Literal["math"] = "math"
    order: Literal["free", "kept"] = "free"
    units: Literal["optional", "ignored", "required"] = "optional"
    percent: Literal["either", "number", "fraction"] = "either"


class Choice(Spec):
    """The letter that the answer chooses (A to J) is the reference's."""

    name: Literal["choice"] = "choice"


class JsonSchema(Spec):
    """The answer is JSON that the schema accepts; needs no reference. `verifier_check` says whether it is a schema."""

    model_config = Spec.model_config | {"populate_by_name": True}

    name: Literal["json_schema"] = "json_schema"
    json_schema: dict[str, Any] = Field(alias="schema")


class Regex(Spec):
    """A regular expression (Python's) matches somewhere in the answer, or the answer as a whole.

    Whether the pattern is one, `verifier_check` says: to compile it may take long.
    """

    name: Literal["regex"] = "regex"
    pattern: str = Field(min_length=1)
    match: Literal["part", "full"] = "part"
    ignore_case: bool = False


class Contains(Spec):
    """All of some texts stand in the answer, or any of them."""

    name: Literal["contains"] = "contains"
    texts: list[Annotated[str, Field(min_length=1, max_length=10_000)]] = Field(min_length=1, max_length=100)
    need: Literal["all", "any"] = "all"
    ignore_case: bool = False


class Exchange(Spec):
    """A program that reads `stdin` writes `stdout`; spaces at the ends of lines and of the text do not count."""

    stdin: str = Field(default="", max_length=1_000_000)
    stdout: str = Field(max_length=1_000_000)


class PythonTests(Spec):
    """The answer is a Python program that passes tests, run apart from everything; the operator must allow it.

    `tests` is Python that runs after the answer's and raises where it is wrong, such as asserts. `cases` are runs of
    the program. With neither, the reference holds one of the two: Python, or the JSON of a list of cases.
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
    """Whether it judges by the reference. What it says would tell a search what nobody but the judge should know."""
    match verifier:
        case JsonSchema() | Regex() | Contains():
            return False
        case PythonTests():
            return verifier.tests is None and not verifier.cases
    return True


def why_unreadable(verifier: Verifier, reference: str) -> str | None:
    """What a reference lacks that every answer would be compared with; None where a worker may be able to read it."""
    left = _HOLLOW.sub("", reference).strip()
    match verifier:
        case Exact() | Math() if not left:
            return "it is empty" if not reference.strip() else "nothing stands in its mark"
        case Math() if not any(map(_has_meaning, left)) and _EMPTY_COLLECTION.search(left) is None:
            return "it has neither letters nor digits nor mathematical signs (exact compares any text)"
        case Number() if not any(map(str.isnumeric, _SUBSCRIPT.sub("", reference))):
            return "it holds no number (exact and math compare words, too)"
        case Choice() if _LETTER.search(reference) is None:
            return "it names no letter from A to J, as a lone capital (exact compares whole texts)"
    return None


def _has_meaning(character: str) -> bool:
    """A letter, a digit or a symbol, as Unicode has them; formulas stand between dollars."""
    return character != "$" and unicodedata.category(character)[0] in "LNS"


def why_not_asked(verifier: Verifier | None, *, has_reference: bool, oracle: bool) -> str | None:
    """Why no search may ask this verifier about a candidate, and what would help; None where it may."""
    if verifier is None:
        return "there is no verifier: name one, such as json_schema, regex or contains, which need no reference"
    if not sees_reference(verifier):
        return None
    if not oracle:
        return (
            f"{verifier.name} sees the reference and only reports: name a verifier that needs none, or say "
            "oracle: true, which every report then shows"
        )
    return None if has_reference else f"{verifier.name} judges by a reference, and there is none: give one"
