"""The form that an answer is held to while it is generated: a JSON schema, a pattern, a choice, or a grammar."""

from __future__ import annotations

import json
from typing import Annotated, Any

from pydantic import Field, model_validator
from pydantic_core import PydanticCustomError

from ponder.domain.enforced_schema import narrowed
from ponder.domain.storable import JsonObject
from ponder.domain.strategy import Spec

_OPTIONS = "x-guidance"
"""The keyword by which a schema could set llguidance's options itself."""
_ESCAPES = 'nrtbf"\\'
"""Without others every text is written in one way, so that no property can hide behind another spelling of its name."""
_SPACES = r"\n {0,32}|\n\t{0,16}| "
"""Between the parts of a JSON text: a space, or a line break and an indentation. Without an end to them, a model that
does not know what to write next may write spaces up to its limit."""
_KINDS = ("regex", "choice", "grammar")


class Structure(Spec):
    """The form that a line or its batch asks for. A JSON schema is asked for by `response_format`.

    `regex`: a pattern in the syntax of Rust's `regex` that the whole answer matches. `choice`: the answer is one of
    these texts. `grammar`: a context-free grammar in llguidance's dialect of Lark.
    """

    regex: str | None = Field(default=None, min_length=1)
    choice: list[Annotated[str, Field(min_length=1, max_length=10_000)]] | None = Field(
        default=None, min_length=1, max_length=1_000
    )
    grammar: str | None = Field(default=None, min_length=1)

    @model_validator(mode="after")
    def _is_one_of_them(self) -> Structure:
        if sum(getattr(self, kind) is not None for kind in _KINDS) != 1:
            raise PydanticCustomError("structure", "give one of regex, choice and grammar")
        return self

    def document(self) -> JsonObject:
        """Returns the structure as a job's request holds it."""
        return self.model_dump(exclude_none=True)


def grammar_of(structure: JsonObject) -> str:
    """Returns the grammar of a job's structure as llguidance reads it. It may be invalid: `structure_check` checks it.

    structure: one of the fields of `Structure`, or `json_schema`.
    """
    from llguidance import LLMatcher

    ((kind, given),) = structure.items()
    match kind:
        case "json_schema":
            schema = {name: part for name, part in narrowed(given).items() if name != _OPTIONS}
            options: Any = {
                "item_separator": ",",
                "key_separator": ":",
                "whitespace_flexible": True,
                "whitespace_pattern": _SPACES,
                "coerce_one_of": False,
                "lenient": False,
                "json_allowed_escapes": _ESCAPES,
            }
            return LLMatcher.grammar_from_json_schema(json.dumps(schema), overrides=options)
        case "regex":
            return LLMatcher.grammar_from_regex(given)
        case "choice":
            return LLMatcher.grammar_from_lark("start: " + " | ".join(map(json.dumps, given)))
    return LLMatcher.grammar_from_lark(str(given))
