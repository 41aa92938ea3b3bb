"""How an answer is judged right. A verifier that sees the reference only reports (it never drives the search)."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, TypeAdapter

from ponder.domain.strategy import Spec


class Exact(Spec):
    """The extracted answer equals the extracted reference, character by character, outer spaces apart."""

    name: Literal["exact"] = "exact"


class Number(Spec):
    """Both are numbers and equal; thousands separators, currency and percent signs are ignored."""

    name: Literal["number"] = "number"


class Math(Spec):
    """Mathematically equal, by math-verify."""

    name: Literal["math"] = "math"


class JsonSchema(Spec):
    """The answer is JSON that the schema accepts; needs no reference."""

    model_config = Spec.model_config | {"populate_by_name": True}

    name: Literal["json_schema"] = "json_schema"
    json_schema: dict[str, Any] = Field(alias="schema")


Verifier = Annotated[Exact | Number | Math | JsonSchema, Field(discriminator="name")]
VERIFIER: TypeAdapter[Exact | Number | Math | JsonSchema] = TypeAdapter(Verifier)
