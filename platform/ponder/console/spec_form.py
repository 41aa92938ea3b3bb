"""Describes strategies and verifiers to a form, from their specs alone, and reads what somebody chose."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

from ponder.domain.strategy import Group, StrategySpec
from ponder.errors import InvalidInput
from ponder.wire import Json

Kind = Literal["number", "text", "choice", "json"]
_DAY_S = 86_400
_NUMBER = re.compile(r"-?\d{1,30}(\.\d{0,30})?(e[+-]?\d{1,3})?", re.ASCII | re.IGNORECASE)
_SENTENCE = re.compile(r"(.+?[.)])(?=\s+[A-Z`]|$)")
_CITATION = re.compile(r"\s*\(([^()]*\b(?:19|20)\d\d\b[^()]*)\)")


@dataclass(frozen=True, slots=True)
class Parameter:
    """A parameter of a spec. `default` is how JSON writes it, or nothing if one must be given."""

    name: str
    kind: Kind
    default: str
    is_required: bool
    choices: tuple[str, ...] = ()
    low: float | None = None
    high: float | None = None
    is_whole: bool = False


@dataclass(frozen=True, slots=True)
class SpecCard:
    """A strategy or verifier as a form shows it: what it is called and does, where it comes from, its parameters.

    Strategies also have a group, and say when to use them and what they cost.
    """

    name: str
    title: str
    sentence: str
    citation: str
    needs: str
    parameters: tuple[Parameter, ...]
    group: str = ""
    use: str = ""
    cost: str = ""


def strategy_groups(specs: Mapping[str, type[StrategySpec]]) -> list[tuple[str, list[SpecCard]]]:
    """Returns the cards of strategies by group, in the order of the groups."""
    made = [
        replace(card, title=spec.title, group=spec.group, use=spec.use, cost=spec.cost)
        for card, spec in zip(cards(specs), specs.values(), strict=True)
    ]
    return [(group, [card for card in made if card.group == group]) for group in get_args(Group)]


def cards(specs: Mapping[str, type[BaseModel]]) -> list[SpecCard]:
    return [_card(name, spec) for name, spec in specs.items()]


def chosen(fields: Mapping[str, str], kind: str, specs: Mapping[str, type[BaseModel]]) -> Json | None:
    """Returns the spec that the fields `KIND` and `KIND.NAME.PARAMETER` describe, unchecked. None is the default."""
    spec = specs.get(name := fields.get(kind, ""))
    if spec is None:
        return {"name": name} if name else None
    given = ((one, fields.get(f"{kind}.{name}.{one.name}", "")) for one in _parameters(spec))
    return {"name": name} | {one.name: _value(one, text, f"ponder.{kind}") for one, text in given if text.strip()}


def written(text: str) -> Any:
    """Reads JSON with finite numbers, or returns the text, about which the API then says what is wrong."""
    with suppress(ValueError, RecursionError):
        return json.loads(text, parse_float=_finite, parse_constant=_finite)
    return text


def number(text: str, param: str) -> int | float:
    """Reads the number of a field. Raises InvalidInput for any other text, and for one that is not finite."""
    text = text.strip()
    found = _NUMBER.fullmatch(text)
    if found is not None and math.isfinite(float(text)):
        return int(text) if found[1] is None and found[2] is None else float(text)
    raise InvalidInput(f"{param}: write a number in digits, such as 1000 or 0.5", param=param, code="invalid_value")


def seconds_of_days(text: str, param: str) -> int:
    """Reads a number of days as whole seconds. Raises InvalidInput."""
    seconds = number(text, param) * _DAY_S
    if not math.isfinite(seconds):
        raise InvalidInput(f"{param}: the number of days is too large", param=param, code="invalid_value")
    return round(seconds)


def _finite(text: str) -> float:
    if not math.isfinite(number := float(text)):
        raise ValueError("a number must be finite")
    return number


def _value(parameter: Parameter, text: str, place: str) -> Any:
    if parameter.kind == "number":
        return number(text, f"{place}.{parameter.name}")
    return text if parameter.kind == "text" or (parameter.kind == "choice" and text not in _BOOLS) else written(text)


_BOOLS = ("true", "false")


def _card(name: str, spec: type[BaseModel]) -> SpecCard:
    told = " ".join((spec.__doc__ or "").split())
    citation = _CITATION.search(told)
    told = _CITATION.sub("", told)
    sentence = _SENTENCE.match(told)
    return SpecCard(
        name,
        name.replace("_", " "),
        (sentence[1] if sentence else told).replace("`", ""),
        citation[1] if citation else "",
        _needs(spec),
        tuple(_parameters(spec)),
    )


def _needs(spec: type[BaseModel]) -> str:
    """Says what a strategy cannot do without."""
    try:
        made = spec()
    except ValidationError:
        return ""
    if not isinstance(made, StrategySpec):
        return ""
    needs = [("a reward model", made.needs_scores), ("a verifier that may be asked", made.needs_verifier)]
    return " and ".join(what for what, is_needed in needs if is_needed)


def _parameters(spec: type[BaseModel]) -> Iterator[Parameter]:
    for name, field in spec.model_fields.items():
        if name != "name":
            yield _parameter(field.alias or name, field)


def _parameter(name: str, field: FieldInfo) -> Parameter:
    kinds = [kind for kind in _members(field.annotation) if kind is not type(None)]
    kind = kinds[0] if len(kinds) == 1 else None
    is_optional = field.is_required()
    default = "" if is_optional or field.default is None else json.dumps(_plain(field.get_default()))
    if get_origin(kind) is Literal:
        return Parameter(name, "choice", json.loads(default or '""'), is_optional, tuple(map(str, get_args(kind))))
    if kind is bool:
        return Parameter(name, "choice", default, is_optional, _BOOLS)
    if kind in (int, float):
        low = _bound(field, "ge", "gt")
        return Parameter(name, "number", default, is_optional, (), low, _bound(field, "le", "lt"), kind is int)
    return Parameter(name, "text" if kind is str else "json", default, is_optional)


def _members(annotation: Any) -> tuple[Any, ...]:
    """Returns the kinds of value that an annotation allows."""
    is_single = get_origin(annotation) is Literal or not get_args(annotation) or get_origin(annotation) in (list, dict)
    return (annotation,) if is_single else get_args(annotation)


def _bound(field: FieldInfo, *names: str) -> float | None:
    bounds = (getattr(one, name, None) for one in field.metadata for name in names)
    return next((bound for bound in bounds if bound is not None), None)


def _plain(value: Any) -> Any:
    return value.model_dump(mode="json") if isinstance(value, BaseModel) else value
