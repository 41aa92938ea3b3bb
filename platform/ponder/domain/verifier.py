"""The verifiers that judge answers. One that sees the reference only reports, unless the job says `oracle: true`."""

from __future__ import annotations

import re
import unicodedata
from typing import Annotated, ClassVar, Literal, get_args

from pydantic import Field, TypeAdapter, model_validator
from pydantic_core import PydanticCustomError

from ponder.domain.storable import JsonObject
from ponder.domain.strategy import Judging, Spec

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


Reading = Literal["answer", "letter", "text", "json", "program"]
"""The part of a text that a verifier reads: the extracted answer, a letter, all after the thought, JSON, or Python."""


class VerifierSpec(Spec):
    """The spec of a verifier, and what can be said of it before there is an answer to judge."""

    reads: ClassVar[Reading] = "answer"
    runs_code: ClassVar[bool] = False
    """Whether it runs what the model wrote, which the operator must allow."""

    @property
    def patterns(self) -> dict[str, str]:
        """The user's regular expressions by field. They are checked where the check can be stopped."""
        return {}

    @property
    def schemas(self) -> dict[str, JsonObject]:
        """The user's JSON schemas by field, which are checked likewise."""
        return {}

    @property
    def sees_reference(self) -> bool:
        """Whether it judges by the reference. Its verdict would reveal the reference to a search."""
        return True

    def why_unreadable(self, reference: str) -> str | None:
        """Returns why answers cannot be compared with a reference, or None if a worker may be able to read it."""
        return None


class Exact(VerifierSpec):
    """The extracted answer equals the extracted reference, character by character, except for outer spaces."""

    name: Literal["exact"] = "exact"

    def why_unreadable(self, reference: str) -> str | None:
        return None if _bare(reference) else _why_hollow(reference)


class Number(VerifierSpec):
    """The answer and the reference are equal numbers. Separators, currency, units and percent signs are ignored."""

    name: Literal["number"] = "number"

    def why_unreadable(self, reference: str) -> str | None:
        if any(map(str.isnumeric, _SUBSCRIPT.sub("", reference))):
            return None
        return "it contains no number (exact and math compare words, too)"


class Math(VerifierSpec):
    """The answer and the reference are mathematically equal, as read by latex2sympy, the parser of Math-Verify.

    `order`: the items of a list may come in any order (`free`) or must have the reference's (`kept`); those of a tuple
    always must. `units`: one side may omit its unit (`optional`), units may differ (`ignored`), or the answer must name
    the reference's (`required`). `percent`: 28% is 28 (`number`), 0.28 (`fraction`), or either.
    """

    name: Literal["math"] = "math"
    order: Literal["free", "kept"] = "free"
    units: Literal["optional", "ignored", "required"] = "optional"
    percent: Literal["either", "number", "fraction"] = "either"

    def why_unreadable(self, reference: str) -> str | None:
        left = _bare(reference)
        if not left:
            return _why_hollow(reference)
        if any(map(_has_meaning, left)) or _EMPTY_COLLECTION.search(left) is not None:
            return None
        return "it has no letters, digits or mathematical signs (exact compares any text)"


class Choice(VerifierSpec):
    """The answer chooses the same letter (A to J) as the reference."""

    reads: ClassVar[Reading] = "letter"

    name: Literal["choice"] = "choice"

    def why_unreadable(self, reference: str) -> str | None:
        if _LETTER.search(reference) is not None:
            return None
        return "it has no lone capital from A to J (exact compares whole texts)"


class JsonSchema(VerifierSpec):
    """The answer is JSON that the schema accepts. Needs no reference."""

    model_config = Spec.model_config | {"populate_by_name": True}
    reads: ClassVar[Reading] = "json"

    name: Literal["json_schema"] = "json_schema"
    json_schema: JsonObject = Field(alias="schema")

    @property
    def schemas(self) -> dict[str, JsonObject]:
        return {"schema": self.json_schema}

    @property
    def sees_reference(self) -> bool:
        return False


class Regex(VerifierSpec):
    """A regular expression of Python's matches a part of the answer, or all of it."""

    reads: ClassVar[Reading] = "text"

    name: Literal["regex"] = "regex"
    pattern: str = Field(min_length=1)
    match: Literal["part", "full"] = "part"
    ignore_case: bool = False

    @property
    def patterns(self) -> dict[str, str]:
        return {"pattern": self.pattern}

    @property
    def sees_reference(self) -> bool:
        return False


class Contains(VerifierSpec):
    """The answer contains all of some texts, or any of them."""

    reads: ClassVar[Reading] = "text"

    name: Literal["contains"] = "contains"
    texts: list[Annotated[str, Field(min_length=1, max_length=10_000)]] = Field(min_length=1, max_length=100)
    need: Literal["all", "any"] = "all"
    ignore_case: bool = False

    @property
    def sees_reference(self) -> bool:
        return False


class Exchange(Spec):
    """One run of a program: it reads `stdin` and must write `stdout`. Trailing spaces are ignored."""

    stdin: str = Field(default="", max_length=1_000_000)
    stdout: str = Field(max_length=1_000_000)


class PythonTests(VerifierSpec):
    """The answer is a Python program that passes tests in a sandbox. The operator must allow it.

    `tests` is Python, such as asserts, that runs after the program and raises if it is wrong. `cases` are runs of the
    program. With neither, the reference holds one of the two: Python, or a list of cases as JSON.
    """

    reads: ClassVar[Reading] = "program"
    runs_code: ClassVar[bool] = True

    name: Literal["python_tests"] = "python_tests"
    tests: str | None = Field(default=None, min_length=1, max_length=1_000_000)
    cases: list[Exchange] = Field(default=[], max_length=200)

    @model_validator(mode="after")
    def _is_one_of_them(self) -> PythonTests:
        if self.tests is not None and self.cases:
            raise PydanticCustomError("python_tests", "give `tests` or `cases`, not both")
        return self

    @property
    def sees_reference(self) -> bool:
        return self.tests is None and not self.cases


class Judge(VerifierSpec, Judging):
    """A model reads the answer and calls it correct or not.

    It reports success only: no search may ask it. With `use_reference` it is shown the reference.
    """

    reads: ClassVar[Reading] = "text"

    name: Literal["judge"] = "judge"
    use_reference: bool = False

    @property
    def sees_reference(self) -> bool:
        return self.use_reference


AnyVerifier = Exact | Number | Math | Choice | JsonSchema | Regex | Contains | PythonTests | Judge
Verifier = Annotated[AnyVerifier, Field(discriminator="name")]
VERIFIER: TypeAdapter[AnyVerifier] = TypeAdapter(Verifier)
VERIFIER_SPECS: dict[str, type[VerifierSpec]] = {
    spec.model_fields["name"].default: spec for spec in get_args(AnyVerifier)
}
VERIFIER_NAMES = tuple(VERIFIER_SPECS)
PLAIN_VERIFIER_NAMES = tuple(
    name
    for name, spec in VERIFIER_SPECS.items()
    if not any(field.is_required() for field in spec.model_fields.values())
)
"""Verifiers that need no parameters."""


def _bare(reference: str) -> str:
    return _HOLLOW.sub("", reference).strip()


def _why_hollow(reference: str) -> str:
    return "there is nothing in its mark" if reference.strip() else "it is empty"


def _has_meaning(character: str) -> bool:
    """Returns whether Unicode calls a character a letter, number or symbol. `$` only marks formulas."""
    return character != "$" and unicodedata.category(character)[0] in "LNS"


def why_not_asked(verifier: Verifier | None, *, has_reference: bool, oracle: bool) -> str | None:
    """Returns why no search may ask this verifier about a candidate, and the remedy, or None if it may."""
    if verifier is None:
        return "there is no verifier: name one, such as json_schema, regex or contains, which need no reference"
    if not verifier.sees_reference:
        return None
    if not oracle:
        return (
            f"{verifier.name} sees the reference and only reports: name a verifier that needs no reference, or say "
            "oracle: true, which every report then shows"
        )
    return None if has_reference else f"{verifier.name} judges by a reference, and there is none: give one"
