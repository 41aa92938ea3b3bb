"""Random JSON schemas, of which most can be enforced."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from ponder_worker.protocol import Document

Schemas = st.SearchStrategy[Any]

_NAMES = st.sampled_from(["a", "b", "d e", "é", 'q"', "</think>"])
_NUMBERS = st.one_of(st.integers(-1000, 1000), st.sampled_from([0.5, -2.25, 1e3, 0.1]))
_PATTERNS = st.sampled_from(["^a+$", "b", "^[a-f]{2,4}$", r"\d{3}", "x|y", r"^\w+$", "[^a]", "^.$", "^(ab)*$", "^$"])
_FORMATS = st.sampled_from(["date", "time", "email", "ipv4", "uuid"])


def _some(**fields: Schemas) -> Schemas:
    return st.fixed_dictionaries({}, optional=fields)


_STRINGS = _some(minLength=st.integers(0, 3), maxLength=st.integers(3, 8), pattern=_PATTERNS).map(
    lambda fields: {"type": "string"} | fields
)
_SCALARS = st.builds(
    lambda kind, fields: {"type": kind} | fields,
    st.sampled_from(["integer", "number"]),
    _some(
        minimum=_NUMBERS,
        maximum=_NUMBERS,
        exclusiveMinimum=_NUMBERS,
        exclusiveMaximum=_NUMBERS,
        multipleOf=st.sampled_from([1, 2, 3, 7, 10]),
    ),
)
_VALUES = st.recursive(
    st.one_of(st.none(), st.booleans(), _NUMBERS, st.text(max_size=4)),
    lambda inner: st.one_of(st.lists(inner, max_size=2), st.dictionaries(_NAMES, inner, max_size=2)),
    max_leaves=3,
)
_LEAVES = st.one_of(
    _STRINGS,
    _SCALARS,
    st.just({"type": "boolean"}),
    st.just({"type": ["string", "null"]}),
    _FORMATS.map(lambda name: {"type": "string", "format": name}),
    st.lists(_VALUES, min_size=1, max_size=3).map(lambda values: {"enum": values}),
    _VALUES.map(lambda value: {"const": value}),
    st.just({"$ref": "#/$defs/other"}),
)


def _larger(inner: Schemas) -> Schemas:
    objects = st.builds(
        lambda properties, is_required, more: (
            {"type": "object", "properties": properties, "required": list(properties) if is_required else []} | more
        ),
        st.dictionaries(_NAMES, inner, max_size=3),
        st.booleans(),
        _some(
            additionalProperties=st.one_of(st.just(False), inner),
            minProperties=st.integers(0, 2),
            maxProperties=st.integers(2, 4),
            patternProperties=st.dictionaries(st.sampled_from(["^x", "z$"]), inner, max_size=1),
        ),
    )
    arrays = _some(
        items=inner,
        prefixItems=st.lists(inner, max_size=2),
        minItems=st.integers(0, 2),
        maxItems=st.integers(2, 4),
    ).map(lambda fields: {"type": "array"} | fields)
    combined = st.builds(
        lambda kind, some: {kind: some}, st.sampled_from(["anyOf", "allOf"]), st.lists(inner, min_size=1, max_size=2)
    )
    return st.one_of(objects, arrays, combined)


def schemas() -> st.SearchStrategy[Document]:
    all_kinds = st.recursive(_LEAVES, _larger, max_leaves=6)
    return st.builds(lambda schema, other: schema | {"$defs": {"other": other}}, all_kinds, _STRINGS | _SCALARS)
